//! Zones by IANA names, from the database that is part of the binary; without the feature `tzdb` there are none.
//!
//! The machine's database is never read, so that a rule means the same everywhere.

#[cfg(feature = "tzdb")]
mod bundled {
    use jiff::Timestamp;
    use jiff::civil::DateTime;
    use jiff::tz::{TimeZone, db};

    use crate::functions::time::civil;

    /// Bytes of the longest name that is looked up; the longest there is has 32.
    const NAME_MAX: usize = 64;

    /// A zone of the database.
    #[derive(Debug)]
    pub(in crate::functions) struct Named(TimeZone);

    impl Named {
        /// Finds a zone by its name, exactly as IANA writes it.
        pub(in crate::functions) fn find(name: &str) -> Option<Named> {
            if name.len() > NAME_MAX {
                return None;
            }
            let zone = db().get(name).ok()?;
            // The database finds names in any case, and answers `Etc/Unknown` with UTC.
            (zone.iana_name() == Some(name) && !zone.is_unknown()).then_some(Named(zone))
        }

        /// Offset and abbreviation, which may be digits. `None`: an instant within the last two days of year 9999 or
        /// beyond, where the database ends.
        pub(in crate::functions) fn at(&self, seconds: i64) -> Option<(i64, String)> {
            let info = self.0.to_offset_info(Timestamp::from_second(seconds).ok()?);
            Some((i64::from(info.offset().seconds()), info.abbreviation().to_owned()))
        }

        pub(in crate::functions) fn id(&self) -> &str {
            self.0.iana_name().unwrap_or_default()
        }

        /// As [`Zone::instant`](super::super::zone::Zone::instant).
        pub(in crate::functions) fn instant(&self, local: i64) -> Option<i64> {
            let (year, month, day) = civil(local.div_euclid(86_400));
            let time = local.rem_euclid(86_400);
            let part = |value: i64| i8::try_from(value).ok();
            let clock = DateTime::new(
                i16::try_from(year).ok()?,
                part(month)?,
                part(day)?,
                part(time / 3_600)?,
                part(time / 60 % 60)?,
                part(time % 60)?,
                0,
            );
            self.0.to_ambiguous_timestamp(clock.ok()?).compatible().ok().map(Timestamp::as_second)
        }
    }
}

#[cfg(not(feature = "tzdb"))]
mod bundled {
    /// There is none.
    #[derive(Debug)]
    pub(in crate::functions) enum Named {}

    impl Named {
        pub(in crate::functions) fn find(_: &str) -> Option<Named> {
            None
        }

        pub(in crate::functions) fn at(&self, _: i64) -> Option<(i64, String)> {
            match *self {}
        }

        pub(in crate::functions) fn id(&self) -> &str {
            match *self {}
        }

        pub(in crate::functions) fn instant(&self, _: i64) -> Option<i64> {
            match *self {}
        }
    }
}

pub(super) use bundled::Named;
