"""Reads what the shop put on Kafka and RabbitMQ with clients of other people, and holds every record and job
against its schema in fixtures/schemas/released.

    e2e.py --prefix P records --orders N   every record of the topics; so many orders ended
    e2e.py --prefix P jobs --at-least N    every job that waits in the queue; they stay there

Exit code 1 where something does not fit, with the first few of it.
"""

import argparse
import collections
import json
import os
import pathlib
import sys
import time
import urllib.parse

import jsonschema
import kafka
import pika

TOPICS = ["catalog.events", "orders.events", "inventory.events", "payments.events"]
QUEUE = "notifications.jobs"
SHOWN = 5
PATIENCE_S = 120


def validators():
    """A validator for each event type and version."""
    root = pathlib.Path(__file__).parent.parent / "fixtures" / "schemas" / "released"
    found = {}
    for path in sorted(root.glob("*.json")):
        kind, version, _ = path.name.split(".")
        schema = json.loads(path.read_text())
        found[kind, int(version[1:])] = jsonschema.Draft202012Validator(
            schema, format_checker=jsonschema.FormatChecker()
        )
    return found


class Findings:
    def __init__(self):
        self.count = collections.Counter()
        self.wrong = []
        self.schemas = validators()

    def look(self, where, payload):
        """Validates one record or job; returns its envelope where it is one."""
        try:
            envelope = json.loads(payload)
            kind = envelope["eventType"], envelope["eventVersion"]
            schema = self.schemas[kind]
        except (ValueError, KeyError, TypeError) as error:
            self.wrong.append(f"{where}: no known event: {error!r}: {payload[:200]!r}")
            return None
        self.count[f"{kind[0]} v{kind[1]}"] += 1
        self.wrong += [f"{where}: {error.json_path}: {error.message}" for error in schema.iter_errors(envelope)]
        return envelope

    def end(self, what):
        for text in self.wrong[:SHOWN]:
            print(f"WRONG {text}", file=sys.stderr)
        if self.wrong:
            sys.exit(f"{len(self.wrong)} {what} do not fit their schema")
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.count.items()))
        print(f"{sum(self.count.values())} {what} fit their schemas as other clients read them: {kinds}")


def records(options):
    """Every record of every topic, from the first to what was the last when it began."""
    brokers = os.environ["SHAKEDOWN_KAFKA"].removeprefix("kafka://").split("?")[0].rstrip("/").split(",")
    consumer = kafka.KafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False, auto_offset_reset="earliest")
    partitions = [
        kafka.TopicPartition(options.prefix + topic, index)
        for topic in TOPICS
        for index in sorted(consumer.partitions_for_topic(options.prefix + topic) or [])
    ]
    if {one.topic for one in partitions} != {options.prefix + topic for topic in TOPICS}:
        sys.exit("not all topics are there")
    begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    consumer.assign(partitions)
    for one in partitions:
        consumer.seek(one, begins[one])
    findings, ended, began = Findings(), collections.Counter(), time.monotonic()
    while any(consumer.position(one) < ends[one] for one in partitions):
        if time.monotonic() - began > PATIENCE_S:
            sys.exit(f"not all records came within {PATIENCE_S} s")
        for one, batch in consumer.poll(timeout_ms=500).items():
            for record in batch:
                where = f"{one.topic}/{one.partition}@{record.offset}"
                envelope = findings.look(where, record.value)
                if envelope is None:
                    continue
                if envelope["eventType"] in ("OrderConfirmed", "OrderCancelled"):
                    ended[envelope["payload"]["orderId"]] += 1
                if record.key is None or dict(record.headers or []).get("content-type") != b"application/json":
                    findings.wrong.append(f"{where}: no key, or no content-type: {record.headers}")
    findings.end("records")
    if len(ended) != options.orders:
        sys.exit(f"{len(ended)} orders ended on the log, and {options.orders} were placed")


def jobs(options):
    """Every job that waits. Unacked they go back when the connection closes."""
    url = os.environ["SHAKEDOWN_RABBIT"]
    host = urllib.parse.urlsplit(url)
    vhost = urllib.parse.unquote(host.path[1:]) or "/"
    connection = pika.BlockingConnection(
        pika.ConnectionParameters(
            host.hostname,
            host.port or 5672,
            vhost,
            pika.PlainCredentials(urllib.parse.unquote(host.username or "guest"), urllib.parse.unquote(host.password or "guest")),
        )
    )
    channel, queue = connection.channel(), options.prefix + QUEUE
    began = time.monotonic()
    while True:
        try:
            ready = channel.queue_declare(queue, passive=True).method.message_count
        except pika.exceptions.ChannelClosedByBroker:
            sys.exit(f"there is no queue {queue}")
        if ready >= options.at_least:
            break
        if time.monotonic() - began > PATIENCE_S:
            sys.exit(f"only {ready} jobs of {options.at_least} came within {PATIENCE_S} s")
        time.sleep(0.2)
    findings = Findings()
    for number in range(ready):
        method, properties, body = channel.basic_get(queue)
        if method is None:
            sys.exit(f"{number} of {ready} jobs were there")
        where = f"{queue} {properties.message_id}"
        envelope = findings.look(where, body)
        if envelope and (properties.message_id != envelope["eventId"] or properties.delivery_mode != 2):
            findings.wrong.append(f"{where}: another id than its event's, or not persistent")
    connection.close()
    findings.end("jobs")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefix", required=True)
    commands = parser.add_subparsers(required=True)
    of_records = commands.add_parser("records")
    of_records.add_argument("--orders", type=int, required=True)
    of_records.set_defaults(run=records)
    of_jobs = commands.add_parser("jobs")
    of_jobs.add_argument("--at-least", type=int, required=True)
    of_jobs.set_defaults(run=jobs)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
