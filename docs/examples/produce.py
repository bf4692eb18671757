#!/usr/bin/env python3
"""Puts one order on a public topic of Kept, from Python.

    pip install confluent-kafka fastavro
    export KEPT_KAFKA=127.0.0.1:9092 KEPT_REGISTRY=http://127.0.0.1:8081/apis/ccompat/v7 KEPT_PREFIX=
    python3 produce.py inbound  order.json --account my-shop --shop shop.example
    python3 produce.py received order.json --account my-shop --shop shop.example --channel storefront

`inbound` sends the file as it is, a body of the form kept.order.v1; Kept reads it. `received` reads it here and
sends an order in Kept's own model. docs/producing.md explains each step.

Prints topic, partition, offset and order id as one line of JSON. Exit: 0 stored, 1 not stored, 2 wrong usage.
"""
import argparse
import hashlib
import io
import json
import os
import re
import struct
import sys
import time
import urllib.request
import uuid
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from confluent_kafka import Producer
from fastavro import parse_schema, schemaless_writer

NO_CENTS, MILLS = {"JPY", "KRW", "ISK", "CLP", "VND"}, {"BHD", "JOD", "KWD", "OMR", "TND"}


def derive(kind, *parts):
    """An identity: SHA-256 over kind and parts, each after its length, as a UUID of version 8."""
    digest = hashlib.sha256()
    for part in (kind.encode(), *parts):
        digest.update(struct.pack(">Q", len(part)) + part)
    head = bytearray(digest.digest()[:16])
    head[6] = head[6] & 0x0F | 0x80
    head[8] = head[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(head)))


def latest_schema(registry, subject):
    with urllib.request.urlopen(f"{registry}/subjects/{subject}/versions/latest", timeout=10) as answer:
        found = json.load(answer)
    return found["id"], parse_schema(json.loads(found["schema"]))


def wire(schema_id, schema, record):
    """The Confluent wire format: a zero, the schema's id in four bytes, then Avro."""
    out = io.BytesIO()
    out.write(struct.pack(">bI", 0, schema_id))
    schemaless_writer(out, schema, record)
    return out.getvalue()


def now_micros():
    return time.time_ns() // 1000


def inbound(args, order, body):
    return {
        "account": args.account, "kind": "order", "format": "kept.order.v1", "shop": args.shop,
        "external_id": order["order_number"], "source_version": None, "received_at": now_micros(), "body": body,
    }


def received(args, order, body):
    """An order of the form kept.order.v1 in Kept's model. Amounts never become floats."""
    currency = order.get("currency", "")
    decimals = 0 if currency in NO_CENTS else 3 if currency in MILLS else 2

    def price(text):
        sign, digits, exponent = Decimal(text).as_tuple()
        amount = int("".join(map(str, digits))) * 10 ** max(exponent, 0) * (-1 if sign else 1)
        return {"amount": amount, "scale": max(-exponent, 0)}

    def minor(text, quantity=1):
        return int((Decimal(text) * quantity).scaleb(decimals).quantize(Decimal(1), ROUND_HALF_UP))

    def micros(text):
        return text and int(datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text)).timestamp() * 1_000_000)

    def attributes(given):
        return [{"name": name, "value": str(value)} for name, value in (given or {}).items()]

    def address(given):
        needed = {part: given.get(part, "") for part in ("name", "street", "postcode", "city", "country")}
        wanted = ("company", "house_number", "house_number_addition", "extra", "region")
        return needed | {part: given.get(part) for part in wanted}

    lines = [{
        "line_no": at, "channel_line_id": line.get("line_id"), "sku": line.get("sku", ""),
        "description": line.get("description"), "quantity": line["quantity"], "unit_price": price(line["unit_price"]),
        "line_total_minor": minor(line["unit_price"], line["quantity"]), "promised_at": micros(line.get("promised_at")),
        "ship_by": micros(line.get("ship_by")), "attributes": attributes(line.get("attributes")),
    } for at, line in enumerate(order.get("lines", []), start=1)]
    charges = [{
        "kind": charge["kind"], "code": charge.get("code", ""), "description": charge.get("description"),
        "quantity": charge.get("quantity", 1), "unit_price": price(charge["unit_price"]),
        "amount_minor": minor(charge["unit_price"], charge.get("quantity", 1)),
    } for charge in order.get("charges", [])]
    payment, delivery = order.get("payment", {}), order.get("delivery", {})
    ship_to, bill_to = order.get("ship_to", {}), order.get("bill_to")
    return {
        "order": {
            "order_id": derive("order", args.shop.encode(), order["order_number"].encode()),
            "channel": args.channel, "shop": args.shop, "channel_order_id": order["order_number"],
            "account": args.account, "placed_at": micros(order["placed_at"]), "currency": currency,
            "stated_total_minor": minor(order["total"]) if "total" in order else None,
            "total_minor": sum(it["line_total_minor"] for it in lines) + sum(it["amount_minor"] for it in charges),
            "customer_ref": order.get("customer_number"), "country": ship_to.get("country", ""),
            "language": order.get("language"), "test": order.get("test", False), "lines": lines, "charges": charges,
            "payment": {
                "method": payment.get("method", "online"), "authorised_minor": minor(payment.get("authorised", "0")),
                "captured_minor": minor(payment.get("captured", "0")), "reference": payment.get("reference"),
            },
            "delivery": {
                "service": delivery.get("service"), "pickup_location": delivery.get("pickup_location"),
                **{name: micros(delivery.get(name)) for name in ("requested_at", "promised_at", "ship_by")},
            },
            "attributes": attributes(order.get("attributes")),
        },
        "received_at": now_micros(), "body_hash": hashlib.sha256(body).hexdigest(), "unmapped": [], "problems": [],
        "party": {
            "ship_to": address(ship_to), "bill_to": bill_to and address(bill_to), "email": order.get("email"),
            "phone": order.get("phone"),
        },
    }


def main():
    parser = argparse.ArgumentParser(description="Puts one order on a public topic of Kept.")
    parser.add_argument("what", choices=["inbound", "received"], help="channels.inbound or orders.received")
    parser.add_argument("file", help="an order of the form kept.order.v1 (JSON)")
    parser.add_argument("--account", required=True, help="the channel account, as in reference.accounts")
    parser.add_argument("--shop", required=True, help="the shop whose numbering the order number belongs to")
    parser.add_argument("--channel", default="storefront", help="for `received`: the kind of channel")
    args = parser.parse_args()
    try:
        kafka, registry = os.environ["KEPT_KAFKA"], os.environ["KEPT_REGISTRY"].rstrip("/")
    except KeyError as missing:
        parser.error(f"{missing} is not set")
    prefix = os.environ.get("KEPT_PREFIX", "")

    with open(args.file, "rb") as file:
        body = file.read()
    order = json.loads(body, parse_float=Decimal)
    number = order["order_number"]
    order_id = derive("order", args.shop.encode(), number.encode())
    name, record = ("channels.inbound", inbound) if args.what == "inbound" else ("orders.received", received)
    schema_id, schema = latest_schema(registry, f"{prefix}{name}-value")
    # The same body again has the same event id, so that sending twice does nothing twice.
    event_id = derive("input", args.account.encode(), number.encode(), hashlib.sha256(body).digest())

    outcome = {}

    def stored(error, message):
        if error is None:
            outcome.update(topic=message.topic(), partition=message.partition(), offset=message.offset())
        else:
            outcome.update(error=str(error))

    producer = Producer({
        "bootstrap.servers": kafka, "partitioner": "murmur2_random", "enable.idempotence": True,
        "message.timeout.ms": 30_000,
    })
    producer.produce(
        f"{prefix}{name}", key=order_id, value=wire(schema_id, schema, record(args, order, body)),
        headers={"kept-event-id": event_id, "kept-subject": f"{name}-value"}, on_delivery=stored,
    )
    producer.flush(35)
    if "offset" not in outcome:
        print(f"not stored: {outcome.get('error', 'no answer in time')}", file=sys.stderr)
        return 1
    print(json.dumps(outcome | {"order_id": order_id, "event_id": event_id}))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError, KeyError) as error:
        print(f"not stored: {error!r}", file=sys.stderr)
        sys.exit(1)
