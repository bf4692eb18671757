//! HTML that cannot be broken out of: what is put into it is escaped, unless it is HTML already.

use std::fmt::Write;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

/// A piece of finished HTML.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Html(pub String);

impl Html {
    pub fn push(&mut self, more: &Html) {
        self.0.push_str(&more.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Html> for Html {
    fn from_iter<I: IntoIterator<Item = Html>>(pieces: I) -> Self {
        pieces.into_iter().fold(Self::default(), |mut all, piece| {
            all.push(&piece);
            all
        })
    }
}

/// What can be put into HTML.
pub trait Put {
    fn put(&self) -> String;
}

impl Put for Html {
    fn put(&self) -> String {
        self.0.clone()
    }
}

impl Put for str {
    fn put(&self) -> String {
        escape(self)
    }
}

impl Put for String {
    fn put(&self) -> String {
        escape(self)
    }
}

impl Put for i64 {
    /// With a thin space every three digits, which no line breaks at.
    fn put(&self) -> String {
        number(*self)
    }
}

impl Put for i32 {
    fn put(&self) -> String {
        self.to_string()
    }
}

impl<T: Put + ?Sized> Put for &T {
    fn put(&self) -> String {
        (**self).put()
    }
}

/// `html!("<p>{}</p>", text)`: every argument is escaped, save [`Html`].
macro_rules! html {
    ($text:literal $(, $argument:expr)* $(,)?) => {
        $crate::html::Html(format!($text $(, $crate::html::Put::put(&$argument))*))
    };
}
pub(crate) use html;

/// A number for people.
fn number(number: i64) -> String {
    let sign = if number < 0 { "−" } else { "" };
    format!("{sign}{}", grouped(&number.unsigned_abs().to_string()))
}

/// Digits in groups of three.
pub fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len());
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Text as HTML shows it, in elements and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// Text as one segment of a path or one value of a query: what is not unreserved (RFC 3986) is percent-encoded.
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => write!(out, "%{other:02X}").expect("a String takes everything"),
        }
        out
    })
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    Text(&'static str),
    /// Numbers stand right, so that their digits stand under each other.
    Number(&'static str),
}

/// A table with its caption; on a narrow screen each row becomes a block that names its columns. `empty` is said
/// when there is no row.
pub fn table(caption: &str, columns: &[Column], rows: impl IntoIterator<Item = Vec<Html>>, empty: &str) -> Html {
    let name = |column: &Column| match column {
        Column::Text(name) | Column::Number(name) => *name,
    };
    let class = |column: &Column| if matches!(column, Column::Number(_)) { " class=\"number\"" } else { "" };
    let mut body = String::new();
    for row in rows {
        body.push_str("<tr>");
        for (column, cell) in columns.iter().zip(row) {
            let name = escape(name(column));
            write!(body, "<td{} data-name=\"{name}\">{}</td>", class(column), cell.0)
                .expect("a String takes everything");
        }
        body.push_str("</tr>");
    }
    if body.is_empty() {
        return html!("<p class=\"empty\">{}</p>", empty);
    }
    let head: String = columns
        .iter()
        .map(|column| format!("<th scope=\"col\"{}>{}</th>", class(column), escape(name(column))))
        .collect();
    Html(format!(
        "<table><caption>{}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>",
        escape(caption)
    ))
}

/// Names and values.
pub fn facts(pairs: &[(&str, Html)]) -> Html {
    let shown = pairs.iter().filter(|pair| !pair.1.is_empty());
    let body: Html = shown.map(|(name, value)| html!("<div><dt>{}</dt><dd>{}</dd></div>", *name, value)).collect();
    html!("<dl class=\"facts\">{}</dl>", body)
}

/// The places that every page leads to: address and name.
const NAV: &[(&str, &str)] = &[("/", "Overview"), ("/orders", "Orders"), ("/waiting", "Waiting"), ("/late", "Late")];

/// A whole page. `nav`: the address of the place it belongs to.
pub fn page(title: &str, nav: Option<&str>, body: &Html) -> Response {
    let links: Html = NAV
        .iter()
        .map(|(address, name)| {
            let here = if Some(*address) == nav { Html(" aria-current=\"page\"".into()) } else { Html::default() };
            html!("<a href=\"{}\"{}>{}</a>", *address, here, *name)
        })
        .collect();
    let html = html!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{} · Kept</title><link rel=\"stylesheet\" href=\"/style.css\"></head><body>\
         <a class=\"skip\" href=\"#main\">To the content</a>\
         <header><a class=\"brand\" href=\"/\">Kept</a><nav aria-label=\"Pages\">{}</nav>\
         <form action=\"/find\" role=\"search\"><label for=\"q\">Order number or id</label>\
         <input id=\"q\" name=\"q\" type=\"search\" required maxlength=\"200\" autocomplete=\"off\"><button>Show</button></form></header>\
         <main id=\"main\"><h1>{}</h1>{}</main>\
         <footer><p>Times are UTC. These pages only show; nothing here changes an order. They hold personal data: keep them off the open network.</p></footer>\
         </body></html>",
        title,
        links,
        title,
        body,
    );
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html.0).into_response()
}

/// What every answer of ours says to the browser.
pub async fn secured(mut response: Response) -> Response {
    const HEADERS: [(header::HeaderName, &str); 5] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_a_page_cannot_break_out_of_it() {
        assert_eq!(html!("<p>{}</p>", "<script>'\"&").0, "<p>&lt;script&gt;&#39;&quot;&amp;</p>");
        assert_eq!(html!("<p>{}</p>", html!("<b>{}</b>", "<")).0, "<p><b>&lt;</b></p>");
        assert_eq!(encoded("../a b?c"), "..%2Fa%20b%3Fc");
    }

    #[test]
    fn numbers_are_readable() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1_000, "1\u{202f}000"), (-1_234_567, "−1\u{202f}234\u{202f}567")]
        {
            assert_eq!(super::number(number), text);
        }
    }
}
