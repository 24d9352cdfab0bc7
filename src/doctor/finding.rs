//! What was found, and what to do next. Never looks at anything itself.

use serde::Serialize;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The services run with it; somebody should look.
    Warn,
    /// They do not start, or do not work.
    Fail,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub area: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was seen. Never holds a secret.
    pub said: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(area: &'static str, said: impl Into<String>) -> Finding {
        Finding { area, verdict: Verdict::Ok, said: said.into(), next: None }
    }

    /// Somebody should look, and do this.
    pub fn warn(area: &'static str, said: impl Into<String>, next: impl Into<String>) -> Finding {
        Finding { area, verdict: Verdict::Warn, said: said.into(), next: Some(next.into()) }
    }

    /// It does not work until this is done.
    pub fn fail(area: &'static str, said: impl Into<String>, next: impl Into<String>) -> Finding {
        Finding { area, verdict: Verdict::Fail, said: said.into(), next: Some(next.into()) }
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        }
    }
}

/// For people: a line for each, the next step under it.
pub fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.area.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { area, verdict, said, next } in findings {
        text += &format!("{:4}  {area:width$}  {said}\n", verdict.word());
        if let Some(next) = next {
            text += &format!("{:1$}→ {next}\n", "", width + 8);
        }
    }
    text
}
