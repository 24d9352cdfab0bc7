//! Requests of Kafka's protocol, one at a time on a connection of its own, in the oldest versions that Kafka 4 and
//! the client library's mock both take. Never tries again.
//!
//! Source: https://kafka.apache.org/protocol.html.

use std::io::{Read, Write};
use std::net::TcpStream;

use async_trait::async_trait;
use ports::Offsets;
use shakedown_conformance::log::{BareMember, Committed, Groups, Who};

const OFFSET_COMMIT: i16 = 8;
const FIND_COORDINATOR: i16 = 10;
const JOIN_GROUP: i16 = 11;
const LEAVE_GROUP: i16 = 13;
const SYNC_GROUP: i16 = 14;
const CONSUMER_GROUP_HEARTBEAT: i16 = 68;

/// Longer than any case.
pub const TIMEOUT_MS: i32 = 60_000;

/// The shortest session that a broker takes by default.
const SESSION_MS: i32 = 6_000;

/// A request's fields.
#[derive(Default)]
pub struct Out(pub Vec<u8>);

impl Out {
    pub fn i8(mut self, value: i8) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn i16(mut self, value: i16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn i32(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn i64(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn string(self, value: &str) -> Self {
        let mut out = self.i16(value.len() as i16);
        out.0.extend(value.as_bytes());
        out
    }

    pub fn bytes(self, value: &[u8]) -> Self {
        let mut out = self.i32(value.len() as i32);
        out.0.extend(value);
        out
    }

    /// A length of the flexible versions: one more than it is; none is 0. All of ours fit one byte.
    fn count(self, value: usize) -> Self {
        assert!(value < 127, "a length of one byte");
        self.i8(value as i8 + 1)
    }

    fn compact(self, value: &str) -> Self {
        let mut out = self.count(value.len());
        out.0.extend(value.as_bytes());
        out
    }

    /// A null of the flexible versions, or tagged fields without any.
    fn none(self) -> Self {
        self.i8(0)
    }
}

/// An answer's fields that are not read yet.
pub struct In<'a>(pub &'a [u8]);

impl In<'_> {
    pub fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_first_chunk().expect("a whole answer");
        self.0 = rest;
        *taken
    }

    pub fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take())
    }

    pub fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take())
    }

    fn text(&mut self, length: usize) -> String {
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8(text.to_vec()).expect("a text")
    }

    pub fn string(&mut self) -> String {
        let length = self.i16().max(0);
        self.text(length as usize)
    }

    /// As [`Out::count`].
    fn count(&mut self) -> usize {
        let [length] = self.take();
        assert!(length < 0x80, "a length of one byte");
        usize::from(length).saturating_sub(1)
    }

    fn compact(&mut self) -> String {
        let length = self.count();
        self.text(length)
    }
}

/// A connection to a broker.
pub struct Wire(TcpStream);

impl Wire {
    /// To this `host:port`.
    pub fn to(broker: &str) -> Wire {
        Wire(TcpStream::connect(broker).expect("a broker that listens"))
    }

    /// The answer to a request, behind its number.
    pub fn ask(&mut self, api: i16, version: i16, body: Out) -> Vec<u8> {
        self.call(Out::default().i16(api).i16(version).i32(0).string("bare"), body)
    }

    /// As [`Self::ask`], in a flexible version.
    fn ask_flexibly(&mut self, api: i16, version: i16, body: Out) -> Vec<u8> {
        let header = Out::default().i16(api).i16(version).i32(0).string("bare").none();
        let mut answer = self.call(header, body);
        assert_eq!(answer.remove(0), 0, "no tagged fields in the header");
        answer
    }

    /// What is behind the number of the request.
    fn call(&mut self, header: Out, body: Out) -> Vec<u8> {
        let request = Out::default().bytes(&[header.0, body.0].concat());
        self.0.write_all(&request.0).expect("a link");
        let mut length = [0; 4];
        self.0.read_exact(&mut length).expect("an answer");
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut answer).expect("an answer");
        answer.split_off(4)
    }
}

/// The address of the broker that coordinates the group.
pub fn coordinator(broker: &str, group: &str) -> String {
    loop {
        let answer = Wire::to(broker).ask(FIND_COORDINATOR, 0, Out::default().string(group));
        let mut answer = In(&answer);
        // A cluster that has just begun makes the topic of the offsets first.
        if answer.i16() == 0 {
            let (_node, host, port) = (answer.i32(), answer.string(), answer.i32());
            return format!("{host}:{port}");
        }
    }
}

/// A member that does what it is told.
pub struct Member {
    wire: Wire,
    groups: Groups,
    group: String,
    id: String,
    /// Its generation, or its epoch.
    generation: i32,
}

impl Member {
    /// Joins the group as its only member.
    pub fn join(broker: &str, groups: Groups, group: &str, topic: &str) -> Member {
        let mut wire = Wire::to(&coordinator(broker, group));
        let (generation, id) = match groups {
            Groups::LedByMembers => {
                let body = Out::default().string(group).i32(SESSION_MS).i32(TIMEOUT_MS);
                let body = body.string("").string("consumer").i32(1).string("range").bytes(&[]);
                let answer = wire.ask(JOIN_GROUP, 2, body);
                let mut answer = In(&answer);
                let (_throttled, error, generation) = (answer.i32(), answer.i16(), answer.i32());
                let (_protocol, leader, id) = (answer.string(), answer.string(), answer.string());
                assert!(error == 0 && leader == id, "it leads: {error}");
                (generation, id)
            }
            Groups::LedByBrokers => {
                let (epoch, id) = beat(&mut wire, group, "", 0, Some(topic));
                (epoch, id)
            }
        };
        Member { wire, groups, group: group.to_owned(), id, generation }
    }
}

/// A heartbeat of KIP-848: epoch and id. Epoch 0 joins, -1 leaves.
fn beat(wire: &mut Wire, group: &str, id: &str, epoch: i32, topic: Option<&str>) -> (i32, String) {
    let body = Out::default().compact(group).compact(id).i32(epoch).none().none().i32(TIMEOUT_MS);
    let body = match topic {
        Some(topic) => body.count(1).compact(topic),
        None => body.none(),
    };
    // A member that joins owns nothing; that is not nothing to be said.
    let body = body.none().count(0).none();
    let answer = wire.ask_flexibly(CONSUMER_GROUP_HEARTBEAT, 0, body);
    let mut answer = In(&answer);
    let (_throttled, error, text) = (answer.i32(), answer.i16(), answer.compact());
    assert_eq!(error, 0, "{text}");
    let id = answer.compact();
    (answer.i32(), id)
}

#[async_trait]
impl BareMember for Member {
    async fn sync(&mut self) {
        // In the other protocol nobody waits for a member.
        if self.groups == Groups::LedByMembers {
            let body = Out::default().string(&self.group).i32(self.generation).string(&self.id);
            let answer = self.wire.ask(SYNC_GROUP, 1, body.i32(1).string(&self.id).bytes(&[]));
            let mut answer = In(&answer);
            assert_eq!((answer.i32(), answer.i16()), (0, 0), "not throttled, no error");
        }
    }

    async fn commit(&mut self, who: Who, next: &Offsets) -> Committed {
        let (id, generation) = match who {
            Who::Member => (&*self.id, self.generation),
            Who::MemberBefore => (&*self.id, self.generation - 1),
            Who::Stranger => ("stranger", self.generation),
            Who::Nobody => ("", -1),
        };
        let (partition, offset) = next.first_key_value().expect("one offset");
        let body = Out::default().compact(&self.group).i32(generation).compact(id).none();
        let body = body.count(1).compact(&partition.topic).count(1).i32(partition.index);
        let body = body.i64(*offset).i32(-1).none().none().none().none();
        let answer = self.wire.ask_flexibly(OFFSET_COMMIT, 9, body);
        let mut answer = In(&answer);
        let _throttled = answer.i32();
        let told = (answer.count(), answer.compact(), answer.count(), answer.i32());
        assert_eq!(told, (1, partition.topic.to_string(), 1, partition.index));
        match answer.i16() {
            0 => Committed::Taken,
            22 => Committed::IllegalGeneration,
            25 => Committed::UnknownMember,
            27 => Committed::RebalanceInProgress,
            113 => Committed::StaleEpoch,
            code => Committed::Other(code),
        }
    }

    async fn leave(&mut self) {
        match self.groups {
            Groups::LedByMembers => {
                let body = Out::default().string(&self.group).string(&self.id);
                let answer = self.wire.ask(LEAVE_GROUP, 1, body);
                let mut answer = In(&answer);
                assert_eq!((answer.i32(), answer.i16()), (0, 0), "not throttled, no error");
            }
            Groups::LedByBrokers => drop(beat(&mut self.wire, &self.group, &self.id, -1, None)),
        }
    }
}
