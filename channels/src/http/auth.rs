//! Who is asking: a bearer key names a channel account. Only the keys' SHA-256 hashes are known here.

use axum::http::{HeaderMap, header};
use kept_processors::reference::Reference;
use kept_schemas::{ids::sha256_hex, reference::Account};
use subtle::{Choice, ConstantTimeEq};

use super::problem::Problem;

/// Longer than any key we would hand out.
const MAX_KEY: usize = 512;

/// The active account whose key the request carries.
///
/// # Errors
/// 401 without a key or with one that nobody has, 403 when its account is switched off.
pub fn account(headers: &HeaderMap, reference: &Reference) -> Result<Account, Problem> {
    let key = bearer(headers).ok_or_else(|| {
        Problem::new("no-key", "send the account's key as `Authorization: Bearer KEY`")
            .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"kept\"")
    })?;
    let found = find(key, reference).ok_or_else(|| {
        Problem::new("wrong-key", "no account has this key")
            .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"kept\", error=\"invalid_token\"")
    })?;
    if !found.active {
        return Err(Problem::new("account-inactive", "ask the merchant to switch the account on"));
    }
    Ok(found.clone())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty() && key.len() <= MAX_KEY).then_some(key)
}

/// Compares with every hash of every account and never stops early, so that the time taken says nothing.
fn find<'a>(key: &str, reference: &'a Reference) -> Option<&'a Account> {
    let asked = sha256_hex(key.as_bytes());
    let mut found = None;
    for account in reference.accounts.values() {
        let mut same = Choice::from(0);
        for hash in &account.key_hashes {
            same |= hash.to_ascii_lowercase().as_bytes().ct_eq(asked.as_bytes());
        }
        if bool::from(same) {
            found = Some(account);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Reference {
        let account = |id: &str, keys: &[&str], active| Account {
            account_id: id.into(),
            shop: format!("{id}.example"),
            key_hashes: keys.iter().map(|key| sha256_hex(key.as_bytes()).to_uppercase()).collect(),
            active,
            ..Default::default()
        };
        let accounts = [account("a", &["old", "new"], true), account("b", &["b"], false), account("c", &[], true)];
        Reference { accounts: accounts.map(|it| (it.account_id.clone(), it)).into(), ..Default::default() }
    }

    fn ask(value: &str) -> Result<String, u16> {
        let mut headers = HeaderMap::new();
        if !value.is_empty() {
            headers.insert(header::AUTHORIZATION, value.parse().expect("a header"));
        }
        account(&headers, &reference()).map(|it| it.account_id).map_err(|it| it.status().as_u16())
    }

    #[test]
    fn a_key_names_its_account_and_both_keys_work_while_one_is_replaced() {
        for (value, answer) in [
            ("Bearer old", Ok("a")),
            ("bearer new", Ok("a")),
            ("Bearer b", Err(403)),
            ("Bearer c", Err(401)),
            ("Bearer ", Err(401)),
            ("Basic b2xk", Err(401)),
            ("old", Err(401)),
            ("", Err(401)),
            // The hash itself is no key.
            ("Bearer 5e0a6a3ad5a0dfbe3ee9b8f9b9c8bb4f4b8c5e9c2d7f6bd7a1f1a4b9e5d3c2b1", Err(401)),
        ] {
            assert_eq!(ask(value), answer.map(str::to_owned), "{value}");
        }
        assert_eq!(ask(&format!("Bearer {}", "x".repeat(600))), Err(401));
    }

    #[test]
    fn a_refusal_says_how_to_authenticate() {
        let refusal = account(&HeaderMap::new(), &reference()).expect_err("no key");
        let response = axum::response::IntoResponse::into_response(refusal);
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer realm=\"kept\"");
    }
}
