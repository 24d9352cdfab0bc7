//! Scenarios of dead letters: what strangers send harms nobody, what waits goes on in order.

use crate::holds;

#[test]
fn a_broken_record_is_a_dead_letter_and_the_partition_flows_on() {
    holds("letters.broken_record");
}

#[test]
fn a_later_version_is_mended_and_what_waited_behind_it_goes_on() {
    holds("letters.later_version_is_mended");
}

#[test]
fn a_redrive_whose_reply_is_lost_is_asked_again_and_happens_once() {
    holds("letters.redrive_with_a_lost_reply");
}

#[test]
fn an_end_passes_a_dead_letter_and_makes_it_void() {
    holds("letters.superseded_by_the_end");
}

#[test]
fn a_known_id_with_another_content_has_no_effect() {
    holds("letters.reused_id");
}
