"""Writes table.csv, beside this file, with Python's zoneinfo and the package tzdata: python3 table.py.

Rows `at,zone,instant,offset,abbreviation` say what a clock shows, rows `is,zone,clock,instant` when it shows it; all in
seconds. Instants lie around changes of the offset; clock times lie before, in and after them.
"""

import datetime
import pathlib
import zoneinfo

import tzdata

zoneinfo.reset_tzpath(to=[])  # The package alone, not the machine's files.

ZONES = """
Africa/Cairo Africa/Casablanca Africa/Johannesburg Africa/Lagos America/Anchorage America/Argentina/Buenos_Aires
America/Belize America/Caracas America/Chicago America/Denver America/Halifax America/Havana America/Los_Angeles
America/New_York America/Phoenix America/Sao_Paulo America/St_Johns Antarctica/Troll Asia/Dubai Asia/Kathmandu
Asia/Kolkata Asia/Pyongyang Asia/Seoul Asia/Shanghai Asia/Tehran Asia/Tokyo Atlantic/Azores Australia/Adelaide
Australia/Lord_Howe Australia/Sydney CET EST5EDT Etc/GMT+5 Europe/Berlin Europe/Dublin Europe/Istanbul Europe/Kyiv
Europe/London Europe/Moscow Europe/Volgograd Pacific/Apia Pacific/Auckland Pacific/Chatham Pacific/Honolulu
Pacific/Kiritimati US/Pacific
""".split()
# Years with an odd change: a day skipped, half hours, a standard time that moves.
ODD = {"Pacific/Apia": 2011, "Asia/Pyongyang": 2018, "America/Caracas": 2007, "Europe/Volgograd": 2018, "Europe/Moscow": 2011}
YEARS = [1883, 1916, 1945, 1970, 1978, 1999, 2007, 2011, 2018, 2024, 2026, 2040]
UTC = datetime.timezone.utc
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)
DAY = datetime.timedelta(days=1)
SECOND = datetime.timedelta(seconds=1)


def seconds(moment):
    return round((moment - EPOCH) / SECOND)


def changes(zone, year):
    """The first instants after a change of offset in a year, by halving days."""
    start = datetime.datetime(year, 1, 1, tzinfo=UTC)
    offset = lambda moment: moment.astimezone(zone).utcoffset()
    for day in range(366):
        low, high = start + day * DAY, start + (day + 1) * DAY
        if offset(low) == offset(high):
            continue
        while high - low > SECOND:
            middle = low + SECOND * ((high - low) // SECOND // 2)
            low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
        yield high


def main():
    lines = [f"# tzdata {tzdata.IANA_VERSION}"]
    for name in ZONES:
        zone = zoneinfo.ZoneInfo(name)
        # Two years for each zone, not the same ones, keep the table short.
        chosen = {YEARS[(len(name) * 7 + step * 5) % len(YEARS)] for step in range(2)} | {ODD.get(name, 2026)}
        instants, clocks = set(), set()
        for year in sorted(chosen):
            instants.add(datetime.datetime(year, 7, 1, 12, tzinfo=UTC))
            for change in changes(zone, year):
                instants.update([change - SECOND, change])
                shown = [moment.astimezone(zone).replace(tzinfo=None, fold=0) for moment in (change - SECOND, change)]
                half = (shown[1] - shown[0]) / 2
                middle = (shown[0] + half).replace(microsecond=0)
                clocks.update([shown[0], middle, shown[1], max(shown) + DAY / 24])
        for moment in sorted(instants):
            local = moment.astimezone(zone)
            lines.append(f"at,{name},{seconds(moment)},{round(local.utcoffset() / SECOND)},{local.tzname()}")
        for clock in sorted(clocks):
            instant = seconds(clock.replace(tzinfo=zone).astimezone(UTC))
            lines.append(f"is,{name},{seconds(clock.replace(tzinfo=UTC))},{instant}")
    pathlib.Path(__file__).with_suffix(".csv").write_text("\n".join(lines) + "\n")


main()
