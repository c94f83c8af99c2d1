//! Identifiers that belong to nobody: card numbers, addresses and e-mails of ranges that are reserved for tests. Pure.
//!
//! - Card numbers begin with 9999: a leading 9 is left to national bodies, followed by their numeric ISO 3166-1 code, and the
//!   codes from 900 up are never assigned to a country. So no issuer can have such a card.
//! - IPv4: 198.18.0.0/15 (RFC 2544), 203.0.113.0/24 and 192.0.2.0/24 (RFC 5737); IPv6: 2001:db8::/32 (RFC 3849).
//! - E-mail: example.com, example.org, example.net (RFC 2606).

use super::dice::Dice;

/// A 16-digit number that passes the Luhn check, of one of 10,000 imaginary issuers.
pub fn card_number(issuer: u64, serial: u64) -> String {
    let body = format!("9999{:04}{:07}", issuer % 10_000, serial % 10_000_000);
    let digit = luhn_digit(&body);
    format!("{body}{digit}")
}

fn luhn_digit(body: &str) -> u32 {
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let digits = body.bytes().rev().map(|byte| u32::from(byte - b'0'));
    let sum: u32 = digits.enumerate().map(|(place, digit)| if place % 2 == 0 { doubled(digit) } else { digit }).sum();
    (10 - sum % 10) % 10
}

/// A test card number that stands for `text`: the same text gives the same number.
pub fn card_number_for(text: &str) -> String {
    let hash = fnv1a(text.as_bytes());
    card_number(hash >> 32, hash & 0xffff_ffff)
}

/// Not for secrets: it only has to spread.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// An address of a home or office line: every country has 32 blocks of 256 addresses in 198.18.0.0/15.
pub(crate) fn line_address(dice: &mut Dice, country: usize) -> String {
    let block = (country % 16) * 32 + dice.index(32);
    format!("198.{}.{}.{}", 18 + block / 256, block % 256, dice.count(1, 254))
}

/// An address of a mobile network.
pub(crate) fn mobile_address(dice: &mut Dice, country: usize) -> String {
    format!("2001:db8:{:x}:{:x}::{:x}", country + 1, dice.index(0x1_0000), dice.count(1, 0xffff))
}

/// An address of a hosting provider: private networks and proxies, of honest people and of others.
pub(crate) fn hosting_address(dice: &mut Dice) -> String {
    let network = if dice.chance(0.5) { "203.0.113" } else { "192.0.2" };
    format!("{network}.{}", dice.count(1, 254))
}

pub(crate) fn email(dice: &mut Dice) -> String {
    let domain = match dice.index(10) {
        0..6 => "example.com",
        6..9 => "example.org",
        _ => "example.net",
    };
    format!("{}{}@{domain}", syllables(dice, 3), dice.index(1000))
}

pub(crate) fn holder_name(dice: &mut Dice) -> String {
    format!("{} {}", syllables(dice, 2), syllables(dice, 3)).to_uppercase()
}

/// Such as "u-5b0c…": 16 hexadecimal digits.
pub(crate) fn opaque_id(dice: &mut Dice, prefix: &str) -> String {
    format!("{prefix}-{:016x}", dice.bits())
}

fn syllables(dice: &mut Dice, count: usize) -> String {
    const SYLLABLES: [&str; 16] = ["ba", "de", "fi", "go", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "wa", "xe", "zu"];
    (0..count).map(|_| SYLLABLES[dice.index(SYLLABLES.len())]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes_luhn(number: &str) -> bool {
        let (body, last) = number.split_at(number.len() - 1);
        luhn_digit(body).to_string() == last
    }

    #[test]
    fn the_check_digit_is_that_of_the_standard() {
        // ISO/IEC 7812-1's example: 7992739871 is completed by 3.
        assert_eq!(luhn_digit("7992739871"), 3);
        assert!(passes_luhn(&card_number(12, 3456)));
    }

    #[test]
    fn texts_become_stable_test_cards() {
        assert_eq!(card_number_for("card-1"), card_number_for("card-1"));
        assert_ne!(card_number_for("card-1"), card_number_for("card-2"));
        assert!(card_number_for("card-1").starts_with("9999"));
    }

    #[test]
    fn addresses_stay_in_the_reserved_ranges() {
        let mut dice = Dice::new(7, 0);
        for country in 0..16 {
            let address: std::net::Ipv4Addr = line_address(&mut dice, country).parse().unwrap();
            assert_eq!(address.octets()[0], 198);
            assert!((18..=19).contains(&address.octets()[1]), "{address}");
            let mobile: std::net::Ipv6Addr = mobile_address(&mut dice, country).parse().unwrap();
            assert_eq!(mobile.segments()[..2], [0x2001, 0xdb8]);
            let hosting: std::net::Ipv4Addr = hosting_address(&mut dice).parse().unwrap();
            assert!(hosting.is_documentation());
        }
    }
}
