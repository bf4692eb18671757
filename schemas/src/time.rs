//! Instants as text: RFC 3339, read and written without a time zone database.

use crate::values::Micros;

impl Micros {
    /// Reads an RFC 3339 instant such as `2026-11-25T10:00:00Z` or `2026-11-25T11:00:00.5+01:00`. `None` for anything
    /// else, a time without an offset among them: nobody could tell which instant it means. Digits after the sixth
    /// decimal are dropped.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (date_time, rest) = bytes.split_at_checked(19)?;
        let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
        if marks.iter().any(|&(at, mark)| date_time[at] != mark) || !matches!(date_time[10], b'T' | b't' | b' ') {
            return None;
        }
        let number = |from: usize, to: usize| digits(&date_time[from..to]);
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        // Second 60 is a leap second; it counts as the first of the next minute, as Unix time has it.
        if !(1..=12).contains(&month)
            || day < 1
            || day > days_in(year, month)
            || hour > 23
            || minute > 59
            || second > 60
        {
            return None;
        }
        let (fraction, offset) = match rest.strip_prefix(b".") {
            None => (0, rest),
            Some(rest) => {
                let length = rest.iter().take_while(|it| it.is_ascii_digit()).count();
                let (fraction, offset) = rest.split_at(length);
                let used = &fraction[..length.min(6)];
                let scale = 10i64.pow(u32::try_from(6 - used.len()).ok()?);
                ((length > 0).then(|| digits(used))?? * scale, offset)
            }
        };
        let offset_minutes = match offset {
            b"Z" | b"z" => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return None,
        };
        let seconds = days_from_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
        Some(Self((seconds - offset_minutes * 60) * Self::SECOND + fraction))
    }

    /// The instant in RFC 3339, UTC, with as many decimals as it needs: none, three or six. Instants outside the years
    /// 0 to 9999, which RFC 3339 cannot say, are given as the nearest that it can.
    pub fn rfc3339(self) -> String {
        const FIRST: i64 = -62_167_219_200 * Micros::SECOND;
        const LAST: i64 = 253_402_300_800 * Micros::SECOND - 1;
        let micros = self.0.clamp(FIRST, LAST);
        let (days, of_day) = (micros.div_euclid(Self::DAY), micros.rem_euclid(Self::DAY));
        let (year, month, day) = date(days);
        let (seconds, fraction) = (of_day / Self::SECOND, of_day % Self::SECOND);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        let head = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        match fraction {
            0 => format!("{head}Z"),
            _ if fraction % 1_000 == 0 => format!("{head}.{:03}Z", fraction / 1_000),
            _ => format!("{head}.{fraction:06}Z"),
        }
    }
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days in the 400 years after which the Gregorian calendar repeats.
const CYCLE_DAYS: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01. Years are counted from March, so that a leap day is a year's last day.
const EPOCH_DAYS: i64 = 719_468;

fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (cycle, of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    cycle * CYCLE_DAYS + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + day_of_year - EPOCH_DAYS
}

fn date(days_from_epoch: i64) -> (i64, i64, i64) {
    let days = days_from_epoch + EPOCH_DAYS;
    let (cycle, of_cycle) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
    let year = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let day_of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12 + 1;
    (cycle * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn instants_are_read_as_rfc_3339_says() {
        for (text, seconds, micros) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2026-11-25T10:00:00Z", 1_795_600_800, 0),
            ("2026-11-25T11:30:00+01:30", 1_795_600_800, 0),
            ("2026-11-25T05:00:00-05:00", 1_795_600_800, 0),
            ("2026-11-25t10:00:00z", 1_795_600_800, 0),
            ("2026-11-25 10:00:00Z", 1_795_600_800, 0),
            ("2026-11-25T10:00:00.5Z", 1_795_600_800, 500_000),
            ("2026-11-25T10:00:00.1234567Z", 1_795_600_800, 123_456),
            ("2000-02-29T00:00:00Z", 951_782_400, 0),
            ("1969-12-31T23:59:59Z", -1, 0),
            ("2016-12-31T23:59:60Z", 1_483_228_800, 0),
        ] {
            assert_eq!(Micros::parse_rfc3339(text), Some(Micros(seconds * 1_000_000 + micros)), "{text}");
        }
    }

    #[test]
    fn what_does_not_name_an_instant_is_refused() {
        for text in [
            "",
            "2026-11-25",
            "2026-11-25T10:00:00",
            "2026-11-25T10:00Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-11-25T24:00:00Z",
            "2026-11-25T10:00:00.Z",
            "2026-11-25T10:00:00+1:00",
            "2026-11-25T10:00:00+25:00",
            "25-11-2026T10:00:00Z",
            "2026-11-25T10:00:00Z ",
            "２026-11-25T10:00:00Z",
            "yesterday at ten in the",
        ] {
            assert_eq!(Micros::parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn an_instant_is_written_as_short_as_it_can_be() {
        assert_eq!(Micros(1_795_600_800_000_000).rfc3339(), "2026-11-25T10:00:00Z");
        assert_eq!(Micros(1_795_600_800_500_000).rfc3339(), "2026-11-25T10:00:00.500Z");
        assert_eq!(Micros(-1).rfc3339(), "1969-12-31T23:59:59.999999Z");
        assert_eq!(Micros(i64::MAX).rfc3339(), "9999-12-31T23:59:59.999999Z");
        assert_eq!(Micros(i64::MIN).rfc3339(), "0000-01-01T00:00:00Z");
    }

    proptest! {
        #[test]
        fn an_instant_reads_back_as_it_was_written(micros in -62_167_219_200_000_000i64..253_402_300_800_000_000) {
            prop_assert_eq!(Micros::parse_rfc3339(&Micros(micros).rfc3339()), Some(Micros(micros)));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,40}") {
            let _ = Micros::parse_rfc3339(&text);
        }
    }
}
