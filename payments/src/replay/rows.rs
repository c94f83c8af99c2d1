//! Rows of a CSV file as payments. A bad row is an error that names row, column and fix; the rows after it can still be read. Pure.

use std::io::Read;

use csv::StringRecord;
use proto::fraud::v1::{Card, CardEntry, Channel, DecideRequest, Merchant};
use scoring_core::money::parse_minor;
use scoring_core::validate::{self, Problems};

use super::mapping::{AmountUnit, CardNumbers, FIELDS, Mapping, MappingError};
use crate::card_number_for;

/// How much of a wrong value is repeated in a message.
const SHOWN_CHARS_MAX: usize = 40;

/// A row that became a payment.
#[derive(Debug, Clone, PartialEq)]
pub struct MappedRow {
    /// Counted from 1, the header not included.
    pub row: u64,
    pub payment: DecideRequest,
    /// `None` if the mapping names no label.
    pub fraud: Option<bool>,
}

/// What is wrong with a row.
#[derive(Debug, thiserror::Error)]
#[error("row {row}, {place}: {problem}")]
pub struct RowError {
    pub row: u64,
    /// The column and the field that it fills, or the whole row.
    place: String,
    problem: String,
}

/// Where a field's value comes from.
#[derive(Debug, Clone)]
enum Source {
    Column { index: usize, name: String },
    Constant(String),
    Absent,
}

/// Reads one CSV file by a mapping.
pub struct Rows<R> {
    reader: csv::Reader<R>,
    mapping: Mapping,
    /// In the order of `FIELDS`.
    sources: Vec<Source>,
    label: Option<usize>,
    row: u64,
    now_ms: i64,
}

impl<R: Read> Rows<R> {
    /// `now_ms`: expired cards are refused as of then.
    pub fn new(mapping: Mapping, input: R, now_ms: i64) -> Result<Self, MappingError> {
        let mut reader = csv::ReaderBuilder::new().flexible(false).trim(csv::Trim::All).from_reader(input);
        let header = reader.headers().map_err(MappingError::Header)?.clone();
        let sources = FIELDS.iter().map(|field| source(&mapping, &header, field)).collect::<Result<_, _>>()?;
        let label = mapping.label.as_ref().map(|label| column(&header, "the label", &label.column)).transpose()?;
        Ok(Self { reader, mapping, sources, label, row: 0, now_ms })
    }

    fn payment(&self, record: &StringRecord) -> Result<MappedRow, RowError> {
        let fields = Fields { rows: self, record };
        let payment = DecideRequest {
            transaction_id: fields.text("transaction_id"),
            tenant: fields.text("tenant"),
            client_time_ms: fields.number("client_time_ms")?,
            user_id: fields.text("user_id"),
            card: Some(Card {
                number: fields.card_number(),
                expiry_month: fields.number("card.expiry_month")?.unwrap_or_default(),
                expiry_year: fields.number("card.expiry_year")?.unwrap_or_default(),
                holder_name: fields.text("card.holder_name"),
                issuer_country: fields.text("card.issuer_country"),
            }),
            amount_minor: fields.amount_minor()?,
            currency: fields.text("currency"),
            merchant: Some(Merchant {
                id: fields.text("merchant.id"),
                category_code: fields.number("merchant.category_code")?.unwrap_or_default(),
                country: fields.text("merchant.country"),
            }),
            device_id: fields.text("device_id"),
            ip_address: fields.text("ip_address"),
            ip_country: fields.text("ip_country"),
            billing_country: fields.text("billing_country"),
            email: fields.text("email"),
            channel: fields.choice("channel", Channel::from_str_name)?.unwrap_or_default().into(),
            card_entry: fields.choice("card_entry", CardEntry::from_str_name)?.unwrap_or_default().into(),
        };
        // Judged as the service will judge it, so that nothing is sent only to be refused.
        if let Err(problems) = validate::check(payment.clone(), self.now_ms) {
            return Err(fields.refused(&problems));
        }
        Ok(MappedRow { row: self.row, payment, fraud: self.fraud(record) })
    }

    fn fraud(&self, record: &StringRecord) -> Option<bool> {
        let text = record.get(self.label?).unwrap_or_default();
        let meaning = &self.mapping.label.as_ref()?.fraud;
        Some(meaning.iter().any(|fraud| fraud == text))
    }
}

impl<R: Read> Iterator for Rows<R> {
    type Item = Result<MappedRow, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut record = StringRecord::new();
        self.row += 1;
        match self.reader.read_record(&mut record) {
            Ok(false) => None,
            Ok(true) => Some(self.payment(&record)),
            Err(error) => {
                let problem = format!("{}: give every row as many values as the header has columns, in UTF-8", plain(&error));
                Some(Err(RowError { row: self.row, place: "the whole row".into(), problem }))
            }
        }
    }
}

fn plain(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => format!("it has {len} values, the header has {expected_len}"),
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}

fn source(mapping: &Mapping, header: &StringRecord, field: &str) -> Result<Source, MappingError> {
    if let Some(value) = mapping.constants.get(field) {
        return Ok(Source::Constant(value.clone()));
    }
    match mapping.columns.get(field) {
        Some(name) => Ok(Source::Column { index: column(header, &format!("`{field}`"), name)?, name: name.clone() }),
        None => Ok(Source::Absent),
    }
}

fn column(header: &StringRecord, field: &str, name: &str) -> Result<usize, MappingError> {
    header.iter().position(|column| column == name).ok_or_else(|| MappingError::MissingColumn {
        field: field.to_owned(),
        column: name.to_owned(),
        columns: header.iter().collect::<Vec<_>>().join(", "),
    })
}

/// The fields of one row.
struct Fields<'a, R> {
    rows: &'a Rows<R>,
    record: &'a StringRecord,
}

impl<R> Fields<'_, R> {
    fn source(&self, field: &str) -> &Source {
        FIELDS.iter().position(|known| *known == field).and_then(|index| self.rows.sources.get(index)).unwrap_or(&Source::Absent)
    }

    fn raw(&self, field: &str) -> &str {
        match self.source(field) {
            Source::Column { index, .. } => self.record.get(*index).unwrap_or_default(),
            Source::Constant(value) => value,
            Source::Absent => "",
        }
    }

    fn text(&self, field: &str) -> String {
        self.raw(field).to_owned()
    }

    fn card_number(&self) -> String {
        match self.rows.mapping.card_numbers {
            CardNumbers::Given => self.text("card.number"),
            CardNumbers::Derived => card_number_for(self.raw("card.number")),
        }
    }

    /// An empty value is none.
    fn number<T: std::str::FromStr>(&self, field: &str) -> Result<Option<T>, RowError> {
        let text = self.raw(field);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| self.wrong(field, format!("{} is not a whole number: write digits only", shown(text))))
    }

    fn choice<T>(&self, field: &str, from_name: impl Fn(&str) -> Option<T>) -> Result<Option<T>, RowError> {
        let text = self.raw(field);
        if text.is_empty() {
            return Ok(None);
        }
        let known = from_name(&text.to_uppercase()).map(Some);
        known.ok_or_else(|| self.wrong(field, format!("{} is not a value of the API: use its names, such as WEB or STORED", shown(text))))
    }

    fn amount_minor(&self) -> Result<i64, RowError> {
        let text = self.raw("amount");
        if self.rows.mapping.amount_unit == AmountUnit::Major {
            return parse_minor("amount", text, self.raw("currency")).map_err(|error| self.wrong("amount", error.to_string()));
        }
        text.parse().map_err(|_| self.wrong("amount", format!("{} is not a whole number of minor units: write digits only", shown(text))))
    }

    /// The first problem; its field is named as in the API, which is how mappings name it, except for the amount.
    fn refused(&self, problems: &Problems) -> RowError {
        let first = problems.iter().next();
        let field = first.map_or("", |problem| problem.field).trim_end_matches("_minor");
        self.wrong(field, first.map(|problem| format!("{}: {}", problem.problem, problem.fix)).unwrap_or_default())
    }

    fn wrong(&self, field: &str, problem: String) -> RowError {
        let place = match self.source(field) {
            Source::Column { name, .. } => format!("column `{name}` ({field})"),
            Source::Constant(_) => format!("constant `{field}` of the mapping"),
            Source::Absent => format!("field `{field}`"),
        };
        RowError { row: self.rows.row, place, problem }
    }
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(SHOWN_CHARS_MAX).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_176_000_000;
    const MAPPING: &str = "
columns: {transaction_id: id, user_id: who, card.number: card, amount: amt, merchant.id: shop, channel: how}
constants: {currency: USD, card.expiry_month: '12', card.expiry_year: '2030'}
card_numbers: derived
label: {column: bad, fraud: ['1', 'yes']}
";

    fn rows(lines: &str) -> Vec<Result<MappedRow, RowError>> {
        let csv = format!("id,who,card,amt,shop,how,bad\n{lines}");
        Rows::new(Mapping::parse(MAPPING).unwrap(), csv.as_bytes(), NOW_MS).unwrap().collect()
    }

    #[test]
    fn a_row_becomes_a_payment_that_the_service_accepts_and_its_label_stays_beside_it() {
        let rows = rows("t1,u1,c-77,12.50,m1,web,yes\nt2,u1,c-77,8,m1,,0\n");
        let first = rows[0].as_ref().unwrap();
        assert_eq!((first.payment.amount_minor, first.payment.channel(), first.fraud), (1250, Channel::Web, Some(true)));
        let second = rows[1].as_ref().unwrap();
        assert_eq!((second.payment.amount_minor, second.fraud), (800, Some(false)));
        assert_eq!(first.payment.card, second.payment.card);
    }

    #[test]
    fn a_bad_row_is_named_with_its_column_and_fix_and_the_next_one_is_read() {
        let rows = rows(
            "t1,u1,c1,\"12,50\",m1,WEB,0\nt2,u1,c1,5,m1,FAX,0\nt 3,u1,c1,5,m1,WEB,0\nt4,u1,c1\nt5,,c1,5,m1,WEB,0\nt6,u1,c1,5,m1,WEB,0\n",
        );
        for (index, expected) in [
            (0, "row 1, column `amt` (amount): amount: \"12,50\" is not a decimal number"),
            (1, "row 2, column `how` (channel): \"FAX\" is not a value of the API"),
            (2, "row 3, column `id` (transaction_id): has 3 bytes, or bytes that are not visible ASCII: send 1 to 64"),
            (3, "row 4, the whole row: it has 3 values, the header has 7"),
            (4, "row 5, column `who` (user_id): is missing: send the customer's id"),
        ] {
            let error = rows[index].as_ref().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        assert_eq!(rows[5].as_ref().unwrap().row, 6);
    }

    #[test]
    fn a_missing_column_is_named_with_those_that_there_are() {
        let error = Rows::new(Mapping::parse(MAPPING).unwrap(), "id,card\n".as_bytes(), NOW_MS).err().unwrap().to_string();
        assert!(error.contains("its columns are id, card"), "{error}");
    }
}
