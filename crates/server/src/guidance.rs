//! The `guidance` of a request, wherever clients put it.

use serde_json::Value;
use stackelberg_registry::guidance::GuidanceError;

use crate::error::ApiError;
use crate::openai::request::Object;

impl From<GuidanceError> for ApiError {
    fn from(error: GuidanceError) -> Self {
        Self::invalid(error.field, error.message)
    }
}

/// The guidance in a request: its field `guidance`, or that of `extra_body` or `vllm_xargs`.
///
/// # Errors
/// There are two, or these objects have other fields.
pub(crate) fn given(
    own: Option<Value>,
    extra_body: Option<Object>,
    vllm_xargs: Option<Object>,
) -> Result<Option<Value>, ApiError> {
    let mut found = own.filter(|value| !value.is_null());
    for (name, object) in [("extra_body", extra_body), ("vllm_xargs", vllm_xargs)] {
        for (field, mut value) in object.unwrap_or_default() {
            if field != "guidance" {
                let field = format!("{name}.{field}");
                let message = format!("{field} is unknown: {name} may have the field guidance only");
                return Err(ApiError::invalid(field, message));
            }
            if value.is_null() {
                continue;
            }
            if let Value::String(text) = &value {
                value = serde_json::from_str(text).map_err(|error| {
                    ApiError::invalid(
                        format!("{name}.guidance"),
                        format!("{name}.guidance: not JSON: {error}"),
                    )
                })?;
            }
            if found.replace(value).is_some() {
                return Err(ApiError::invalid("guidance", "guidance is given twice: give it once"));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn guidance_is_given_once() {
        let object = |text: &str| serde_json::from_str::<Object>(text).ok();
        let found = given(None, object(r#"{"guidance": {"reward": "a"}}"#), None);
        assert_eq!(found.unwrap(), Some(json!({"reward": "a"})));
        let found = given(Some(Value::Null), None, object(r#"{"guidance": "{\"reward\": \"a\"}"}"#));
        assert_eq!(found.unwrap(), Some(json!({"reward": "a"})));
        assert!(given(Some(json!({})), None, object(r#"{"guidance": {}}"#)).is_err());
        assert_eq!(given(None, object(r#"{"guidance": null}"#), None).unwrap(), None);
        assert_eq!(
            given(None, object(r#"{"x": 1}"#), None).unwrap_err().param.as_deref(),
            Some("extra_body.x")
        );
    }
}
