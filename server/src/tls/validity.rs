//! From when to when a certificate holds: the one thing of it that nobody else here tells (RFC 5280 §4.1).

/// Seconds since the epoch, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before_s: i64,
    pub(super) not_after_s: i64,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

impl Validity {
    /// Reads it from a certificate, DER; `None` if that is none.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (mut certificate, _) = expect(certificate, SEQUENCE)?;
        let mut fields = take(&mut certificate, SEQUENCE)?;
        if fields.first() == Some(&VERSION) {
            take(&mut fields, VERSION)?;
        }
        take(&mut fields, INTEGER)?;
        // Signature algorithm and issuer.
        take(&mut fields, SEQUENCE)?;
        take(&mut fields, SEQUENCE)?;
        let mut validity = take(&mut fields, SEQUENCE)?;
        let not_before_s = take_time(&mut validity)?;
        let not_after_s = take_time(&mut validity)?;
        Some(Self { not_before_s, not_after_s })
    }
}

/// Takes an element of this tag; returns its content.
fn take<'b>(bytes: &mut &'b [u8], tag: u8) -> Option<&'b [u8]> {
    let (content, rest) = expect(bytes, tag)?;
    *bytes = rest;
    Some(content)
}

/// The content of the first element, which has to have this tag, and what follows it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [found, length, rest @ ..] = bytes else { return None };
    if *found != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |value, digit| value << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn take_time(bytes: &mut &[u8]) -> Option<i64> {
    let tag = *bytes.first()?;
    let text = std::str::from_utf8(take(bytes, tag)?).ok()?.strip_suffix('Z')?;
    let digits: Vec<i64> = text.chars().map(|c| c.to_digit(10).map(i64::from)).collect::<Option<_>>()?;
    let pair = |at: usize| Some(digits.get(at)? * 10 + digits.get(at + 1)?);
    let (year, at) = match (tag, digits.len()) {
        // Two digits stand for 1950 to 2049 (RFC 5280 §4.1.2.5.1).
        (UTC_TIME, 12) => (pair(0).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        (GENERALIZED_TIME, 14) => (pair(0)? * 100 + pair(2)?, 4),
        _ => return None,
    };
    let (month, day) = (pair(at)?, pair(at + 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let time_s = pair(at + 4)? * 3600 + pair(at + 6)? * 60 + pair(at + 8)?;
    Some(days_since_epoch(year, month, day) * 24 * 3600 + time_s)
}

/// Days from 1 January 1970, in the calendar of today: years are counted from March, so that leap days come last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_dates_of_a_certificate_are_read() {
        for (from, to, not_before_s, not_after_s) in [
            ((1970, 1, 1), (1999, 12, 31), 0, 946_598_400),
            ((2000, 2, 29), (2049, 12, 31), 951_782_400, 2_524_521_600),
            ((2024, 3, 1), (2100, 1, 1), 1_709_251_200, 4_102_444_800),
        ] {
            let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            params.not_before = date_time_ymd(from.0, from.1, from.2);
            params.not_after = date_time_ymd(to.0, to.1, to.2);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(Validity::of(certificate.der()), Some(Validity { not_before_s, not_after_s }));
        }
    }

    #[test]
    fn what_is_cut_short_or_altered_never_panics() {
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let der = certificate.der().to_vec();
        for end in 0..der.len() {
            assert_eq!(Validity::of(&der[..end]), None);
        }
        for at in 0..der.len().min(300) {
            for value in [0, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut altered = der.clone();
                altered[at] = value;
                let _whatever = Validity::of(&altered);
            }
        }
    }
}
