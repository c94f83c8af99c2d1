//! Code lists: ISO 3166-1 alpha-2 countries, ISO 4217 currencies with their minor digits. Pure.

use std::fmt;

/// Two upper-case letters. Whether ISO has assigned them is asked of requests only ([`Country::assigned`]), so that a log
/// written by a newer version with a newer list stays readable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// The largest [`Country::ordinal`].
    pub const ORDINAL_MAX: u16 = 26 * 26;

    pub fn from_letters(code: &str) -> Option<Self> {
        let letters: [u8; 2] = code.as_bytes().try_into().ok()?;
        letters.iter().all(u8::is_ascii_uppercase).then_some(Self(letters))
    }

    /// A country that ISO 3166-1 has assigned, or the user-assigned `XK` (Kosovo) that card schemes use.
    pub fn assigned(code: &str) -> Option<Self> {
        COUNTRIES.split_ascii_whitespace().any(|known| known == code).then(|| Self::from_letters(code)).flatten()
    }

    pub fn letters(self) -> [u8; 2] {
        self.0
    }

    /// The place of the two letters in the alphabet of pairs: 1 for AA to 676 for ZZ. Stored, so it never changes.
    pub fn ordinal(self) -> u16 {
        let place = |letter: u8| u16::from(letter.saturating_sub(b'A'));
        place(self.0[0]) * 26 + place(self.0[1]) + 1
    }

    pub fn from_ordinal(ordinal: u16) -> Option<Self> {
        let place = ordinal.checked_sub(1).filter(|place| *place < Self::ORDINAL_MAX)?;
        let letter = |place: u16| u8::try_from(place).ok().map(|place| b'A' + place);
        Some(Self([letter(place / 26)?, letter(place % 26)?]))
    }

    pub fn as_str(&self) -> &str {
        // Always ASCII letters: see `from_letters`.
        std::str::from_utf8(&self.0).unwrap_or("??")
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many decimal digits a currency's minor unit has; `None` for a code that is not active.
pub fn minor_digits(currency: &str) -> Option<u32> {
    let listed = |codes: &str| codes.split_ascii_whitespace().any(|code| code == currency);
    [(2, CENTS), (0, WHOLE), (3, MILS), (4, FOUR_DIGITS)].into_iter().find(|(_, codes)| listed(codes)).map(|(digits, _)| digits)
}

/// Active codes of ISO 4217 that have a minor unit (metals, bond units and test codes have none), by its digits.
const CENTS: &str = "
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP
    CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS
    KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD
    PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP
    TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG";
const WHOLE: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";
const MILS: &str = "BHD IQD JOD KWD LYD OMR TND";
const FOUR_DIGITS: &str = "CLF UYW";

const COUNTRIES: &str = "
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC
    CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD
    GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH
    KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW
    MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC
    SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY
    UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_lists_hold_each_code_once() {
        let count = |texts: &[&str], length: usize| {
            let codes: Vec<&str> = texts.iter().flat_map(|text| text.split_ascii_whitespace()).collect();
            assert!(codes.iter().all(|code| code.len() == length && code.bytes().all(|b| b.is_ascii_uppercase())));
            assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
            codes.len()
        };
        // 249 assigned by ISO, and XK.
        assert_eq!(count(&[COUNTRIES], 2), 250);
        assert!(count(&[CENTS, WHOLE, MILS, FOUR_DIGITS], 3) > 150);
    }

    #[test]
    fn minor_digits_are_those_of_iso_4217() {
        let digits = ["USD", "EUR", "JPY", "KWD", "CLF", "XXX", "usd", "DEM", "", "XAU"].map(minor_digits);
        assert_eq!(digits, [Some(2), Some(2), Some(0), Some(3), Some(4), None, None, None, None, None]);
    }

    #[test]
    fn a_country_is_two_assigned_letters() {
        assert_eq!(Country::assigned("DE").map(|c| c.as_str().to_owned()), Some("DE".into()));
        for bad in ["", "de", "DEU", "XX", "UK", "D E", "É"] {
            assert_eq!(Country::assigned(bad), None, "{bad}");
        }
        assert!(Country::from_letters("XX").is_some());
    }
}
