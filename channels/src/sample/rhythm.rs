//! When orders come: more in the evening than at night, more on a Monday than on a Saturday, businesses in working
//! hours only. The n-th of all orders has its time from this alone, so that a sample of any length needs no memory.

use jiff::{Span, civil::Date, tz::TimeZone};
use kept_schemas::Micros;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::channels::{BUSINESS_DAYS, BUSINESS_HOURS, CHANNELS, CONSUMER_DAYS, CONSUMER_HOURS, Channel};

/// Hours with their weights, in order of time.
pub struct Rhythm {
    hours: Vec<Hour>,
    total: u64,
}

struct Hour {
    begins: Micros,
    /// Weight of all hours before this one.
    before: u64,
    weekday: usize,
    hour: usize,
}

fn weight(channel: &Channel, weekday: usize, hour: usize) -> u64 {
    // Over a week each table adds up to about the same, so that shares stay shares.
    let (days, hours) =
        if channel.business { (BUSINESS_DAYS, BUSINESS_HOURS) } else { (CONSUMER_DAYS, CONSUMER_HOURS) };
    let scale = |table: &[u32]| table.iter().map(|it| u64::from(*it)).sum::<u64>();
    u64::from(channel.share) * u64::from(days[weekday]) * u64::from(hours[hour]) * 1_000_000
        / (scale(&days) * scale(&hours))
}

impl Rhythm {
    /// `days` days from `start` on, of this merchant's clock.
    pub fn new(start: Date, days: u32, zone: &TimeZone) -> Result<Self, String> {
        let far = |_| format!("{days} days from {start} are too far away");
        let mut hours = Vec::with_capacity(24 * days as usize);
        let mut total = 0;
        for day in 0..days {
            let date = start.checked_add(Span::new().days(i64::from(day))).map_err(far)?;
            let weekday = usize::try_from(date.weekday().to_monday_zero_offset()).unwrap_or(0);
            for hour in 0..24i8 {
                let wall = date.at(hour, 0, 0, 0);
                let begins = zone.to_ambiguous_timestamp(wall).compatible().map_err(far)?;
                let begins = Micros(begins.as_microsecond());
                let hour = usize::try_from(hour).unwrap_or(0);
                hours.push(Hour { begins, before: total, weekday, hour });
                total += CHANNELS.iter().map(|channel| weight(channel, weekday, hour)).sum::<u64>();
            }
        }
        if total == 0 {
            return Err("a sample needs at least one day".into());
        }
        Ok(Self { hours, total })
    }

    /// When the `n`-th of `of` orders comes, and from which channel.
    pub fn order(&self, n: u64, of: u64, random: &mut ChaCha8Rng) -> (Micros, &'static Channel) {
        // Somewhere in the n-th of `of` equal parts: so times rise with n.
        let (n, of) = (u128::from(n), u128::from(of.max(1)));
        let part = u128::from(random.random_range(0..1_000u32));
        let point = (u128::from(self.total) * (n * 1_000 + part) / (of * 1_000)) as u64;
        let at = self.hours.partition_point(|hour| hour.before <= point).saturating_sub(1);
        let hour = &self.hours[at];
        let next = self.hours.get(at + 1).map_or(self.total, |it| it.before);
        let inside = u128::from(point - hour.before) * Micros::HOUR as u128 / u128::from((next - hour.before).max(1));
        let time = hour.begins.plus(i64::try_from(inside).unwrap_or(0));
        let mut pick = random.random_range(0..(next - hour.before).max(1));
        for channel in CHANNELS {
            let weight = weight(channel, hour.weekday, hour.hour);
            if pick < weight {
                return (time, channel);
            }
            pick -= weight;
        }
        (time, &CHANNELS[0])
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn evenings_are_busier_than_nights_and_businesses_rest_on_sundays() {
        let zone = TimeZone::get("Europe/Amsterdam").unwrap();
        let rhythm = Rhythm::new(Date::constant(2026, 11, 23), 7, &zone).unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let all: Vec<(Micros, &Channel)> = (0..20_000).map(|n| rhythm.order(n, 20_000, &mut random)).collect();
        assert!(all.windows(2).all(|pair| pair[0].0 <= pair[1].0), "times rise");
        // Amsterdam is an hour ahead of UTC in November.
        let hour = |at: Micros| (at.0 / Micros::HOUR + 1).rem_euclid(24);
        let count = |from, to| all.iter().filter(|(at, _)| (from..to).contains(&hour(*at))).count();
        assert!(count(20, 22) > 8 * count(3, 5), "{} {}", count(20, 22), count(3, 5));
        let sunday = Micros::parse_rfc3339("2026-11-29T00:00:00+01:00").unwrap();
        let business = all.iter().filter(|(_, channel)| channel.business).count();
        let on_sunday = all.iter().filter(|(at, channel)| channel.business && *at >= sunday).count();
        assert!((1_200..2_400).contains(&business) && on_sunday < business / 50, "{business} {on_sunday}");
        let bol = all.iter().filter(|(_, channel)| channel.channel == "bol").count();
        assert!((6_500..7_500).contains(&bol), "{bol}");
    }
}
