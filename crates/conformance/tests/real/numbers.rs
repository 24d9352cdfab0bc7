//! Batches under numbers that a case makes up: what idempotence is made of. Never sends one by itself.
//!
//! Source: the batch format of the Kafka documentation, 5.3; varints are zigzag, as Protocol Buffers have them.

use ports::Record;
use shakedown_conformance::log::{Appended, Sent};

use crate::clients::wire::{In, Out, TIMEOUT_MS, Wire};

const PRODUCE: i16 = 0;
const INIT_PRODUCER_ID: i16 = 22;

impl Wire {
    /// InitProducerId, without a transactional id.
    pub fn producer_id(&mut self) -> i64 {
        loop {
            let body = Out::default().i16(-1).i32(TIMEOUT_MS);
            let answer = self.ask(INIT_PRODUCER_ID, 0, body);
            let mut answer = In(&answer);
            let _throttled = answer.i32();
            if answer.i16() == 0 {
                return answer.i64();
            }
        }
    }

    /// Produce, one batch of one record to partition 0.
    pub fn send(&mut self, sent: Sent, record: &Record) -> Appended {
        let batch = batch(sent, record);
        let body = Out::default().i16(-1).i16(-1).i32(TIMEOUT_MS);
        let body = body.i32(1).string(&record.to).i32(1).i32(0).bytes(&batch);
        let answer = self.ask(PRODUCE, 3, body);
        let mut answer = In(&answer);
        assert_eq!((answer.i32(), answer.string(), answer.i32()), (1, record.to.to_string(), 1));
        let _index = answer.i32();
        match (answer.i16(), answer.i64()) {
            (0, offset) => Appended::At(offset),
            (45, _) => Appended::OutOfOrder,
            (46, _) => Appended::Duplicate,
            (code, _) => Appended::Other(code),
        }
    }
}

/// Magic 2, uncompressed.
fn batch(sent: Sent, record: &Record) -> Vec<u8> {
    let one = Out::default().i8(0).varint(0).varint(0);
    let one = one.sized(record.key.as_bytes()).sized(&record.payload).varint(0);
    let Sent { producer, epoch, sequence } = sent;
    let (attributes, last_delta, first_ms, last_ms) = (0, 0, 0, 0);
    let checked = Out::default().i16(attributes).i32(last_delta).i64(first_ms).i64(last_ms);
    let checked = checked.i64(producer).i16(epoch).i32(sequence).i32(1).sized(&one.0).0;
    let (leader_epoch, magic) = (-1, 2);
    let body = Out::default().i32(leader_epoch).i8(magic).i32(crc32c(&checked).cast_signed());
    Out::default().i64(0).bytes(&[body.0, checked].concat()).0
}

/// Castagnoli's, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

impl Out {
    /// A number of the batch format, zigzag.
    fn varint(mut self, value: i64) -> Self {
        let mut left = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while left >= 0x80 {
            self.0.push(left as u8 | 0x80);
            left >>= 7;
        }
        self.0.push(left as u8);
        self
    }

    fn sized(self, value: &[u8]) -> Self {
        let mut out = self.varint(value.len() as i64);
        out.0.extend(value);
        out
    }
}

impl In<'_> {
    fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.take())
    }
}
