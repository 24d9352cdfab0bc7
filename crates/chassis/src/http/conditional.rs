//! Conditional requests (RFC 9110, section 13): entity tags as they are sent and asked for. Never
//! decides: a condition on a write is for the rule to look at, on the locked row.

use axum::http::{HeaderMap, HeaderName, header};

use super::Problem;

/// What a request says in If-Match or If-None-Match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags {
    /// `*`: whatever there is.
    Any,
    /// Any of these.
    These(Vec<Tag>),
}

/// An entity tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// `W/`: the same for people, perhaps not byte by byte.
    pub weak: bool,
    /// What stands between the quotes.
    pub opaque: String,
}

impl Tags {
    /// The tags of If-Match. It compares strongly, so that a weak tag could never match: 400.
    pub fn if_match(headers: &HeaderMap) -> Result<Option<Tags>, Problem> {
        let tags = Tags::read(headers, &header::IF_MATCH)?;
        if let Some(Tags::These(tags)) = &tags
            && tags.iter().any(|tag| tag.weak)
        {
            return Err(bad(
                &header::IF_MATCH,
                "a weak tag never matches here: send the strong one",
            ));
        }
        Ok(tags)
    }

    /// The tags of If-None-Match. It compares weakly: `W/"1"` is `"1"`.
    pub fn if_none_match(headers: &HeaderMap) -> Result<Option<Tags>, Problem> {
        Tags::read(headers, &header::IF_NONE_MATCH)
    }

    fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
        let mut tags = Vec::new();
        let mut any = false;
        let mut sent = false;
        for value in headers.get_all(name) {
            sent = true;
            let text = value.to_str().map_err(|_| bad(name, "visible ASCII characters only"))?;
            let mut rest = text.trim_matches([' ', '\t', ',']);
            while !rest.is_empty() {
                if let Some(behind) = rest.strip_prefix('*') {
                    any = true;
                    rest = behind;
                } else {
                    let (tag, behind) = one(rest).ok_or_else(|| bad(name, rest))?;
                    tags.push(tag);
                    rest = behind;
                }
                let behind = rest.trim_start_matches([' ', '\t']);
                if !behind.is_empty() && !behind.starts_with(',') {
                    return Err(bad(name, behind));
                }
                rest = behind.trim_start_matches([' ', '\t', ',']);
            }
        }
        match (sent, any, tags.is_empty()) {
            (false, ..) => Ok(None),
            (true, true, true) => Ok(Some(Tags::Any)),
            (true, true, false) => Err(bad(name, "* stands alone")),
            (true, false, false) => Ok(Some(Tags::These(tags))),
            (true, false, true) => Err(bad(name, "it is empty")),
        }
    }
}

/// The first tag of a text, and what follows.
fn one(text: &str) -> Option<(Tag, &str)> {
    let (weak, rest) = match text.strip_prefix("W/") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (opaque, behind) = rest.strip_prefix('"')?.split_once('"')?;
    let visible = opaque.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
    visible.then(|| (Tag { weak, opaque: opaque.to_owned() }, behind))
}

fn bad(name: &HeaderName, cause: &str) -> Problem {
    let detail = format!(
        "{name}: {cause}; send entity tags as an ETag header has them, with their quotes (\"7\"), \
         separated by commas, or * alone"
    );
    Problem::new(400, "entity-tag-invalid", "The entity tag is invalid", detail)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("if-match", HeaderValue::from_str(value).unwrap());
            headers.append("if-none-match", HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn these(tags: &[&str]) -> Result<Option<Tags>, Problem> {
        let tag = |opaque: &&str| Tag { weak: false, opaque: (*opaque).to_owned() };
        Ok(Some(Tags::These(tags.iter().map(tag).collect())))
    }

    #[test]
    fn tags_come_alone_in_lists_and_in_several_headers() {
        assert_eq!(Tags::if_match(&HeaderMap::new()), Ok(None));
        assert_eq!(Tags::if_match(&headers(&["*"])), Ok(Some(Tags::Any)));
        assert_eq!(Tags::if_match(&headers(&["\"1\""])), these(&["1"]));
        assert_eq!(Tags::if_match(&headers(&["\"1\" ,\"a,b\"", "\"\""])), these(&["1", "a,b", ""]));
        let weak = Tags::if_none_match(&headers(&["W/\"1\""]));
        let tag = Tag { weak: true, opaque: "1".to_owned() };
        assert_eq!(weak, Ok(Some(Tags::These(vec![tag]))));
    }

    #[test]
    fn malformed_tags_are_refused_with_what_to_do() {
        for value in
            ["", "1", "\"1", "1\"", "\"1\" \"2\"", "*, \"1\"", "\"a b\"", "w/\"1\"", "W/1", "**"]
        {
            let problem = Tags::if_none_match(&headers(&[value])).unwrap_err();
            assert_eq!((problem.status, problem.kind), (400, "entity-tag-invalid"), "{value}");
        }
        let weak = Tags::if_match(&headers(&["\"2\", W/\"1\""])).unwrap_err();
        assert!(weak.detail.contains("strong"), "{weak:?}");
    }
}
