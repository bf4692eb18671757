//! Whole files, small: the shapes of dirt a real year has, and every way a file or a row can be wrong.

use std::{io::Write, path::PathBuf};

use kept_schemas::{
    Micros, OrderId,
    order::{ChargeKind, PaymentMethod},
    own::OrderForm,
};

use super::*;

const YEAR_MAP: &str = include_str!("../../maps/online-retail.toml");
const YEAR: &str = include_str!("../../fixtures/dirty-year.csv");

const SMALL_MAP: &str = r#"
account = "file"
shop = "shop.example"
[order]
number = "No"
placed_at = { column = "Date", format = "%Y-%m-%d" }
currency = "Cur"
customer_number = "Who"
payment_method = { column = "Paid", default = "online" }
[order.ship_to]
name = "Name"
country = { column = "Land", words = { Nederland = "NL" } }
[line]
sku = "Code"
quantity = "Qty"
unit_price = "Price"
"#;
const SMALL_HEAD: &str = "No,Date,Cur,Who,Paid,Name,Land,Code,Qty,Price\n";

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("kept-import-{}-{name}", std::process::id()));
    std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    path
}

struct Ran {
    orders: Vec<Ready>,
    outcome: Outcome,
    result: Result<(), ImportError>,
}

impl Ran {
    fn form(&self, number: &str) -> OrderForm {
        let ready = self.orders.iter().find(|it| it.number == number).unwrap();
        OrderForm::parse(&ready.body).unwrap().form
    }
}

fn import(name: &str, bytes: &[u8], map: &str) -> Ran {
    let path = file(name, bytes);
    let mapping = Mapping::parse(map).unwrap();
    let mut orders = Vec::new();
    let mut outcome = Outcome::default();
    let options = Options { examples: 10, demand: true };
    let result = run(&path, &mapping, options, &Progress::default(), None, &mut outcome, |ready| {
        orders.push(ready);
        Ok(())
    });
    std::fs::remove_file(path).unwrap();
    Ran { orders, outcome, result }
}

fn small(name: &str, rows: &str) -> Ran {
    import(name, format!("{SMALL_HEAD}{rows}").as_bytes(), SMALL_MAP)
}

#[test]
fn every_sale_of_a_dirty_year_becomes_one_order_and_the_money_is_the_files() {
    let ran = import("year.csv", YEAR.as_bytes(), YEAR_MAP);
    ran.result.as_ref().unwrap();
    let numbers: Vec<&str> = ran.orders.iter().map(|it| it.number.as_str()).collect();
    // 900003 stands in two places and comes when it is whole.
    assert_eq!(numbers, ["900001", "900004", "900003", "900005", "900007", "900009"]);
    let tally = &ran.outcome.tally;
    assert_eq!((tally.rows, tally.orders, tally.order_rows, tally.refused_orders), (17, 6, 14, 0));
    let pounds = tally.currencies["GBP"];
    // 18 × 2.55 + 500 × 4.95 + 2 × 12.75 + 0.001 + 2 × 1.25, and 54 + 29.17 − 3.10 − 7.95 in charges.
    assert_eq!((pounds.goods.units, pounds.goods.exact.show(2)), (527, "2,548.901".to_owned()));
    assert_eq!((pounds.charges.count, pounds.charges.exact.show(2)), (6, "72.12".to_owned()));
    assert_eq!(pounds.total().rounded.show(2), "2,621.02");
    let skipped: Vec<_> = tally.skipped.iter().map(|(name, it)| (name.as_str(), it.orders, it.units)).collect();
    assert_eq!(skipped, [("adjustments", 1, 1), ("credits", 1, -1), ("stock corrections", 1, -10)]);
    assert_eq!((tally.zero_total_orders, tally.orders_without_goods, tally.zero_price_lines), (2, 1, 1));
    assert_eq!((tally.scattered_orders, tally.orders_of_several_times, tally.folded_sku_lines), (1, 1, 2));
    assert_eq!((tally.odd_lines_as_charges, tally.orders_without_country, tally.orders_without_customer), (1, 1, 2));
}

#[test]
fn an_order_of_the_year_says_what_its_rows_say_and_labels_what_is_made_up() {
    let ran = import("labels.csv", YEAR.as_bytes(), YEAR_MAP);
    let order = ran.form("900003");
    assert_eq!(order.placed_at.rfc3339(), "2011-07-01T09:00:00Z", "summer time in London");
    assert_eq!((order.lines.len(), order.charges[0].kind, order.charges[0].quantity), (2, ChargeKind::Shipping, 3));
    assert_eq!(order.total_minor(), Some(255_450));
    assert_eq!(order.customer_number.as_deref(), Some("12583"));
    assert_eq!(order.payment.method, PaymentMethod::OnAccount, "502 units of goods");
    assert_eq!(order.attributes[0].name, "synthetic");
    assert_eq!(order.attributes[0].value, "address, payment");
    assert_eq!(order.ship_to.unwrap().country, "FR");
    assert_eq!(ran.form("900001").payment.method, PaymentMethod::Channel);
    assert_eq!(ran.form("900001").lines[1].sku, "85123A");
    let nowhere = ran.form("900004");
    assert_eq!((nowhere.ship_to, nowhere.attributes[0].value.as_str()), (None, "payment"));
    let vouchers = ran.form("900005");
    assert!(vouchers.lines.is_empty());
    assert_eq!(vouchers.total_minor(), Some(2_607));
    let odd = ran.form("900009");
    assert_eq!((odd.charges[0].kind, odd.charges[0].quantity), (ChargeKind::Manual, -1));
    assert_eq!(odd.placed_at.rfc3339(), "2011-10-30T00:30:00Z", "the first of two half past ones");
}

#[test]
fn a_second_import_sends_the_same_records_to_the_byte() {
    let one = import("once.csv", YEAR.as_bytes(), YEAR_MAP);
    let two = import("twice.csv", YEAR.as_bytes(), YEAR_MAP);
    assert_eq!(one.orders, two.orders);
    let mapping = Mapping::parse(YEAR_MAP).unwrap();
    for (a, b) in one.orders.iter().zip(&two.orders) {
        let ids = [a.inbound(&mapping, Micros(1)), b.inbound(&mapping, Micros(2))].map(|(_, it)| it.event_id);
        assert!(ids[0].is_some() && ids[0] == ids[1]);
        assert_eq!(a.order_id, OrderId::of("online-retail.example", &a.number));
    }
}

#[test]
fn packed_files_give_the_same_orders() {
    let plain = import("plain.csv", YEAR.as_bytes(), YEAR_MAP);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(YEAR.as_bytes()).unwrap();
    assert_eq!(import("year.csv.gz", &gz.finish().unwrap(), YEAR_MAP).orders, plain.orders);
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
    xz.write_all(YEAR.as_bytes()).unwrap();
    let packed = xz.finish().unwrap();
    assert_eq!(import("year.csv.xz", &packed, YEAR_MAP).orders, plain.orders);
    // A file that was not copied whole is noticed before anything is sent.
    let torn = import("torn.csv.xz", &packed[..packed.len() / 2], YEAR_MAP);
    assert!(torn.orders.is_empty());
    assert!(matches!(torn.result, Err(ImportError::Read(..))), "{:?}", torn.result);
}

#[test]
fn a_row_that_cannot_be_used_refuses_its_order_with_row_and_reason() {
    const GOOD: &str = "1,2026-01-02,EUR,7,,Jan,Nederland,A,2,1.50";
    let table: &[(&str, &str, &str)] = &[
        // a row after a good one of the same order, the field at fault, and what is said
        ("1,2026-01-02,EUR,7,,Jan,Nederland,A,2", "row", "has 9 fields, the first row has 10"),
        ("1,2026-01-02,EUR,7,,Jan,Nederland,A,1.5,1.50", "Qty", "\"1.5\" is not a whole number of units"),
        ("1,2026-01-02,EUR,7,,Jan,Nederland,A,many,1.50", "Qty", "a text of 4 characters is not a whole number"),
        ("1,2026-01-02,EUR,7,,Jan,Nederland,A,,1.50", "Qty", "is empty"),
        ("1,2026-01-02,EUR,7,,Jan,Nederland,,1,1.50", "Code", "is empty"),
        ("1,2026-01-02,EUR,7,,Jan,Nederland,A,2,\"1,50\"", "Price", "\"1,50\" is not an amount"),
        ("1,2026-01-02,EUR,7,,Jan,Nederland,A,0,1.50", "Qty", "a quantity of zero or below"),
        ("1,2026-01-02,EUR,7,,Jan,Nederland,A,1,-1.50", "Price", "a price below zero"),
        ("1,02/01/2026,EUR,7,,Jan,Nederland,A,1,1.50", "Date", "is not a time of the form %Y-%m-%d"),
        ("1,2026-01-02,EUR,8,,Jan,Nederland,A,1,1.50", "Who", "rows of one order say different things"),
        ("1,2026-01-02,USD,7,,Jan,Nederland,A,1,1.50", "Cur", "rows of one order say different things"),
        ("1,2026-01-02,EUR,7,,Jan,Holland,A,1,1.50", "Land", "is not among the words of order.ship_to.country.words"),
        ("1,2026-01-02,EUR,7,,Jan,Nederland,A,9999999999,1.50", "Qty", "at most a thousand million"),
        ("1,2026-01-02,EUR,7,,Jan,Nederland,A,9000000000000000000,0", "Qty", "at most a thousand million"),
        ("1,2026-01-02,EUR,7,,Jan,Nederland,A,1,99999999999999999999", "Price", "is not an amount"),
    ];
    for (at, (row, field, said)) in table.iter().enumerate() {
        let ran = small(&format!("row-{at}.csv"), &format!("{GOOD}\n{row}\n2{}\n", &GOOD[1..]));
        ran.result.as_ref().unwrap();
        assert_eq!(ran.orders.len(), 1, "{row}");
        assert_eq!((ran.outcome.tally.refused_orders, ran.outcome.tally.refused_rows), (1, 2), "{row}");
        let (number, reasons) = &ran.outcome.refusals[0];
        let hit = reasons.iter().any(|it| it.field.starts_with(field) && it.text.contains(said));
        assert!(number == "1" && hit, "{row}: {reasons:?}");
    }
    let whole = [
        ("", "2026-01-02,EUR,7,,Jan,Nederland,A,1,1.50", "No", "has no order number"),
        ("1", "2026-01-02,XXX,7,,Jan,Nederland,A,1,1.50", "currency", "the currency (\"XXX\") is not one we know"),
        ("1", "2026-01-02,,7,,Jan,Nederland,A,1,1.50", "currency", "has no currency"),
        ("1", ",EUR,7,,Jan,Nederland,A,1,1.50", "placed_at", "has no time"),
        ("1", "2026-01-02,EUR,7,cash,Jan,Nederland,A,1,1.50", "payment_method", "order.payment_method.words"),
    ];
    for (number, rest, field, said) in whole {
        let ran = small("whole.csv", &format!("{number},{rest}\n"));
        let (_, reasons) = &ran.outcome.refusals[0];
        assert!(reasons[0].field == field && reasons[0].text.contains(said), "{rest}: {reasons:?}");
        assert_eq!(reasons[0].row, 2);
    }
}

#[test]
fn bytes_that_are_not_utf_8_refuse_their_order_or_are_read_as_the_mapping_says() {
    let mut bytes = SMALL_HEAD.as_bytes().to_vec();
    bytes.extend_from_slice(b"1,2026-01-02,EUR,7,,Ren\xe9 \x80,Nederland,A,1,1.50\n");
    let ran = import("latin.csv", &bytes, SMALL_MAP);
    assert!(ran.outcome.refusals[0].1[0].text.contains("windows-1252"));
    let map = format!("{SMALL_MAP}\n[file]\nencoding = \"windows-1252\"\n");
    let ran = import("latin-2.csv", &bytes, &map);
    assert_eq!(ran.form("1").ship_to.unwrap().name, "René €");
}

#[test]
fn an_open_quotation_mark_does_not_take_the_file_into_memory() {
    let mut text = format!("{SMALL_HEAD}1,2026-01-02,EUR,7,,\"Jan,Nederland,A,1,1.50\n");
    text.push_str(&"2,2026-01-02,EUR,7,,Jan,Nederland,A,1,1.50\n".repeat(60_000));
    let ran = import("endless.csv", text.as_bytes(), SMALL_MAP);
    let error = ran.result.unwrap_err().to_string();
    assert!(error.contains("row 2") && error.contains(open::ENDLESS), "{error}");
    assert!(ran.orders.is_empty());
}

#[test]
fn an_order_of_too_many_rows_is_refused_with_a_reason() {
    let rows = "1,2026-01-02,EUR,7,,Jan,Nederland,A,1,1.50\n".repeat(2_001);
    let ran = small("many.csv", &rows);
    assert!(ran.outcome.refusals[0].1[0].text.contains("2001 lines, more than 2000"));
    let rows = "1,2026-01-02,EUR,7,,Jan,Nederland,A,1,1.50\n".repeat(10_000);
    let ran = small("more.csv", &rows);
    assert_eq!(ran.outcome.tally.refused_rows, 10_000);
    assert!(ran.outcome.refusals[0].1[0].text.contains("10000 rows"));
}

#[test]
fn rows_and_columns_of_their_own_can_be_left_out_or_charged() {
    let map = SMALL_MAP.replace(
        "[line]",
        "[[skip]]\nname = \"drafts\"\ncolumn = \"Paid\"\nis = [\"draft\"]\n[[skip]]\nname = \"notes\"\nrow_only = true\ncolumn = \"Code\"\nstarts_with = \"#\"\n[[charge]]\nkind = \"shipping\"\ncode = \"SHIP\"\namount = \"Ship\"\n[line]",
    );
    let head = SMALL_HEAD.replace("Price\n", "Price,Ship\n");
    let rows = "1,2026-01-02,EUR,7,,Jan,Nederland,A,2,1.50,4.95\n1,2026-01-02,EUR,7,,Jan,Nederland,#note,x,,4.95\n2,2026-01-02,EUR,7,draft,Jan,Nederland,A,2,1.50,0\n3,2026-01-02,EUR,7,,Jan,Nederland,A,2,1.50,0.00\n";
    let ran = import("columns.csv", format!("{head}{rows}").as_bytes(), &map);
    assert_eq!(ran.orders.iter().map(|it| it.number.as_str()).collect::<Vec<_>>(), ["1", "3"]);
    assert_eq!((ran.form("1").total_minor(), ran.form("3").charges.len()), (Some(795), 0));
    assert_eq!(ran.outcome.tally.skipped["drafts"].orders, 1);
}

#[test]
fn json_lines_are_sent_as_they_are_and_broken_ones_are_told_by_their_row() {
    let map = "account = \"erp\"\nshop = \"s\"\n[file]\nformat = \"jsonl\"\n";
    let good = r#"{"order_number":"1","placed_at":"2026-11-25T10:00:00Z","currency":"EUR","lines":[{"sku":"A","quantity":2,"unit_price":"1.255"}]}"#;
    let text = format!("{good}\n{{\"order_number\":\n\n[1]\n  {good}  \n");
    let ran = import("orders.jsonl", text.as_bytes(), map);
    ran.result.as_ref().unwrap();
    assert_eq!(ran.orders.len(), 2);
    assert_eq!(ran.orders[0].body, good.as_bytes());
    assert_eq!(ran.orders[0], ran.orders[1]);
    assert_eq!((ran.orders[0].units, ran.orders[0].total_minor), (2, 251));
    let rows: Vec<u64> = ran.outcome.refusals.iter().map(|(_, reasons)| reasons[0].row).collect();
    assert_eq!(rows, [2, 3, 4]);
}

#[test]
fn a_file_that_is_not_there_or_empty_or_has_other_columns_is_said_before_anything_is_sent() {
    let mapping = Mapping::parse(SMALL_MAP).unwrap();
    let mut outcome = Outcome::default();
    let gone =
        run(Path::new("/nowhere.csv"), &mapping, Options::default(), &Progress::default(), None, &mut outcome, |_| {
            Ok(())
        });
    assert!(matches!(gone, Err(ImportError::Open(..))));
    assert!(matches!(import("empty.csv", b"", SMALL_MAP).result, Err(ImportError::Empty(_))));
    let other = import("other.csv", b"a,b\n1,2\n", SMALL_MAP).result.unwrap_err().to_string();
    assert!(other.contains("order.number: the file has no column \"No\""), "{other}");
    assert!(other.contains("line.sku: the file has no column \"Code\""), "{other}");
}

#[test]
fn the_report_names_every_row_that_was_not_sent() {
    let path = file("report-input.csv", YEAR.as_bytes());
    let to = std::env::temp_dir().join(format!("kept-import-report-{}.csv", std::process::id()));
    let mut report = Report::create(&to).unwrap();
    let mapping = Mapping::parse(YEAR_MAP).unwrap();
    let mut outcome = Outcome::default();
    run(&path, &mapping, Options::default(), &Progress::default(), Some(&mut report), &mut outcome, |_| Ok(()))
        .unwrap();
    report.finish().unwrap();
    let text = std::fs::read_to_string(&to).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(lines[1].starts_with("left out,C900002,5,5,1,credits:"), "{text}");
    assert!(lines[2].starts_with("note,900003,6,9,3,its rows stand in 2 places"), "{text}");
    std::fs::remove_file(to).unwrap();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn the_summary_says_what_is_sent_left_out_and_made_up() {
    let ran = import("summary.csv", YEAR.as_bytes(), YEAR_MAP);
    let text = summary::summary(&ran.outcome, summary::Fate::DryRun);
    for said in [
        "6  orders would be sent, of 14 rows",
        "2,621.02 (difference -0.001)",
        "credits: 1 rows from row 5, -1 units",
        "Refused: nothing",
        "Synthetic, made up",
        "1  orders stand in several places",
    ] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
}

/// [`SMALL_MAP`] for JSON lines.
fn json_map(rows: &str) -> String {
    SMALL_MAP.replace("[order]\n", &format!("[file]\nformat = \"jsonl\"\n{rows}[order]\n"))
}

#[test]
fn json_lines_are_mapped_as_the_same_rows_of_a_table_are() {
    let table =
        format!("{SMALL_HEAD}1,2026-11-25,EUR,7,,Ann,Nederland,A,2,1.10\n1,2026-11-25,EUR,7,,Ann,Nederland,B,1,0.5\n");
    let lines = r#"{"No":1,"Date":"2026-11-25","Cur":"EUR","Who":7,"Paid":null,"Name":"Ann","Land":"Nederland","Code":"A","Qty":2,"Price":1.10}
{"No":"1","Date":"2026-11-25","Cur":"EUR","Who":"7","Name":"Ann","Land":"Nederland","Code":"B","Qty":"1","Price":"0.5"}
"#;
    let (table, lines) =
        (import("t.csv", table.as_bytes(), SMALL_MAP), import("t.jsonl", lines.as_bytes(), &json_map("")));
    table.result.as_ref().unwrap();
    lines.result.as_ref().unwrap();
    assert_eq!((lines.orders.len(), &lines.orders), (1, &table.orders));
    assert_eq!((lines.outcome.tally.rows, lines.orders[0].total_minor), (2, 270));
}

#[test]
fn an_order_with_a_list_of_rows_is_one_line_of_json() {
    let map = json_map("rows = \"goods\"\n")
        .replace("\"Code\"", "\"goods.code\"")
        .replace("\"Qty\"", "\"goods.qty\"")
        .replace("\"Price\"", "\"goods.price\"")
        .replace("\"Land\"", "\"to.land\"");
    let line = r#"{"No":"1","Date":"2026-11-25","Cur":"EUR","Who":7,"Paid":"","Name":"Ann","to":{"land":"Nederland"},"goods":[{"code":"A","qty":2,"price":1.10},{"code":"B","qty":1,"price":12345678.123456789}]}"#;
    let ran = import("list.jsonl", format!("{line}\n").as_bytes(), &map);
    ran.result.as_ref().unwrap();
    let form = ran.form("1");
    let lines: Vec<_> = form.lines.iter().map(|it| (it.sku.as_str(), it.quantity, it.unit_price.to_string())).collect();
    assert_eq!(
        lines,
        [("A", 2, "1.10".to_owned()), ("B", 1, "12345678.123456789".to_owned())],
        "no float came between"
    );
    assert_eq!(form.ship_to.unwrap().country, "NL");
}

#[test]
fn what_is_wrong_with_a_line_of_json_refuses_that_line_alone() {
    let good = r#"{"No":"1","Date":"2026-11-25","Cur":"EUR","Who":7,"Paid":"","Name":"","Land":"","Code":"A","Qty":2,"Price":1}"#;
    let deep = format!("{}1{}", r#"{"a":"#.repeat(9), "}".repeat(9));
    for (bad, said) in [
        ("{", "is not JSON"),
        ("[1]", "is not a JSON object"),
        (r#"{"No":"2","No":"3"}"#, "has a field twice"),
        ("", "is not JSON"),
        (deep.as_str(), "objects"),
    ] {
        let ran = import("bad.jsonl", format!("{good}\n{bad}\n").as_bytes(), &json_map(""));
        ran.result.as_ref().unwrap();
        assert_eq!((ran.orders.len(), ran.outcome.tally.refused_orders), (1, 1), "{bad}");
        let reason = &ran.outcome.refusals[0].1[0];
        assert!(reason.row == 2 && reason.text.contains(said), "{bad}: {reason:?}");
    }
    let ran = import("near.jsonl", good.replace("Code", "Coda").as_bytes(), &json_map(""));
    let why = ran.result.unwrap_err().to_string();
    assert!(why.contains("line.sku: the file has no column \"Code\"; the nearest is \"Coda\""), "{why}");
    let why =
        import("rows.csv", SMALL_HEAD.as_bytes(), &SMALL_MAP.replace("[order]\n", "[file]\nrows = \"x\"\n[order]\n"));
    assert!(why.result.unwrap_err().to_string().contains("file.rows"));
}
