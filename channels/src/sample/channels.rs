//! The channels of an invented Dutch merchant: what each sells to whom, how it is paid and by which way it comes in.

use kept_schemas::order::PaymentMethod;

use crate::sender::Way;

/// A channel account of the sample.
#[derive(Debug, Clone, Copy)]
pub struct Channel {
    pub account: &'static str,
    pub channel: &'static str,
    pub shop: &'static str,
    pub way: Way,
    /// Its part of a thousand orders.
    pub share: u32,
    /// Sells to businesses, in larger quantities and working hours.
    pub business: bool,
    /// How its orders are paid, when there is one way only.
    pub payment: Option<PaymentMethod>,
    /// Country and its part of a hundred of the channel's orders.
    pub countries: &'static [(&'static str, u32)],
    /// A second account that brings orders of the same shop.
    pub second: &'static str,
}

/// The sample's channels. Nothing here is a real account.
pub const CHANNELS: &[Channel] = &[
    Channel {
        account: "bol-nl",
        channel: "bol",
        shop: "bol",
        way: Way::Topic,
        share: 370,
        business: false,
        payment: Some(PaymentMethod::Channel),
        countries: &[("NL", 78), ("BE", 22)],
        second: "bol-nl-file",
    },
    Channel {
        account: "amazon-eu",
        channel: "amazon",
        shop: "amazon",
        way: Way::Received,
        share: 100,
        business: false,
        payment: Some(PaymentMethod::Channel),
        countries: &[("DE", 60), ("NL", 20), ("FR", 20)],
        second: "amazon-eu-file",
    },
    Channel {
        account: "shopify-nl",
        channel: "shopify",
        shop: "kept-sample.example",
        way: Way::Http,
        share: 210,
        business: false,
        payment: None,
        countries: &[("NL", 82), ("BE", 12), ("DE", 6)],
        second: "shopify-nl-file",
    },
    Channel {
        account: "woo-be",
        channel: "woocommerce",
        shop: "be.kept-sample.example",
        way: Way::Http,
        share: 120,
        business: false,
        payment: None,
        countries: &[("BE", 80), ("LU", 5), ("FR", 15)],
        second: "woo-be-file",
    },
    Channel {
        account: "storefront-de",
        channel: "storefront",
        shop: "de.kept-sample.example",
        way: Way::Http,
        share: 130,
        business: false,
        payment: None,
        countries: &[("DE", 85), ("AT", 15)],
        second: "storefront-de-file",
    },
    Channel {
        account: "edi-retail",
        channel: "edi",
        shop: "edi",
        way: Way::Import,
        share: 30,
        business: true,
        payment: Some(PaymentMethod::OnAccount),
        countries: &[("NL", 60), ("BE", 20), ("DE", 20)],
        second: "edi-retail-mail",
    },
    Channel {
        account: "phone",
        channel: "phone",
        shop: "phone",
        way: Way::Http,
        share: 40,
        business: true,
        payment: Some(PaymentMethod::OnAccount),
        countries: &[("NL", 90), ("BE", 10)],
        second: "phone-file",
    },
];

/// How busy each hour of a day is, of consumers and of businesses; local time.
pub const CONSUMER_HOURS: [u32; 24] =
    [14, 8, 5, 4, 4, 6, 14, 26, 38, 48, 54, 55, 54, 53, 52, 52, 52, 50, 52, 64, 78, 80, 60, 32];
/// See [`CONSUMER_HOURS`].
pub const BUSINESS_HOURS: [u32; 24] =
    [0, 0, 0, 0, 0, 1, 6, 30, 90, 120, 130, 120, 70, 110, 115, 100, 70, 30, 6, 2, 0, 0, 0, 0];
/// How busy each weekday is, Monday first.
pub const CONSUMER_DAYS: [u32; 7] = [115, 105, 100, 98, 92, 84, 106];
/// See [`CONSUMER_DAYS`].
pub const BUSINESS_DAYS: [u32; 7] = [130, 125, 120, 120, 100, 4, 1];
