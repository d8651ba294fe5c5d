//! Chat templates are rendered as transformers does.

use std::collections::BTreeMap;

use serde_json::json;
use stackelberg_engine::{Argument, ChatTemplate, Message};

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, "<s>", "</s>").with_date("2025-06-30".parse().unwrap())
}

fn render(template: &ChatTemplate) -> Result<String, String> {
    let messages =
        [Message::new("user", "<q>"), Message::new("assistant", "b"), Message::new("user", "c")];
    template.prompt(&messages).map_err(|error| error.to_string())
}

/// Templates with what Jinja2 makes of them in the environment of `apply_chat_template`.
const CASES: [(&str, &str); 39] = [
    (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}[A]{{ m.content }}{% endgeneration %}{% else %}[U]{{ m.content }}{% endif %}{% endfor %}",
        "[U]<q>[A]b[U]c",
    ),
    ("a \n  {%- generation -%}  \n x \n {%- endgeneration -%} \n b", "axb"),
    ("a\n  {% generation %}\n x\n  {% endgeneration %}\nb\n", "a\n x\nb"),
    ("{% raw %}{% generation %}{% endraw %}{# {% generation %} #}.", "{% generation %}."),
    ("a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc\r\n", "a\nb\nc"),
    (
        "{% if tools is not none %}T{% endif %}{% if documents is none %}D{% endif %}{% if not tools %}N{% endif %}{{ tools is defined }}",
        "DNTrue",
    ),
    (
        "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        "0134",
    ),
    (
        "{{ {'b': '<é>&\\'\"\\n', 'a': [1, 2.5, true, none, {}], 'c': []} | tojson }}",
        "{\"b\": \"<é>&'\\\"\\n\", \"a\": [1, 2.5, true, null, {}], \"c\": []}",
    ),
    (
        "{{ {'b': 'x', 'a': [1, {'z': 2}], 'e': []} | tojson(indent=2) }}",
        "{\n  \"b\": \"x\",\n  \"a\": [\n    1,\n    {\n      \"z\": 2\n    }\n  ],\n  \"e\": []\n}",
    ),
    (
        "{{ {'b': 'é😀', 'a': 1} | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}",
        "{\"a\":1,\"b\":\"\\u00e9\\ud83d\\ude00\"}",
    ),
    ("{{ messages[0] | tojson }}", "{\"role\": \"user\", \"content\": \"<q>\"}"),
    (
        "{% set ns = namespace(n=0, first=true) %}{% for m in messages %}{% set ns.n = ns.n + loop.index0 %}{% if loop.first %}F{% endif %}{% if loop.last %}L{% endif %}{% if loop.previtem is defined and loop.previtem.role != m.role %}!{% endif %}{% if loop.nextitem is defined %}>{% endif %}{% endfor %}{{ ns.n }}",
        "F>!>L!3",
    ),
    (
        "{% for m in messages[::-1] %}{{ loop.index0 }}{{ m['role'][0] }}{% endfor %}{{ messages[1:] | length }}",
        "0u1a2u2",
    ),
    (
        "{{ ' a b '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'a</think>b'.split('</think>')[-1].lstrip('\\n') }}|{{ 'a b  c'.split() | join(',') }}|{{ 'abc'.startswith('ab') }}|{{ 'abc'.endswith(('x','c')) }}",
        "a b|a|b|a,b,c|True|True",
    ),
    (
        "{{ 'abc'.removeprefix('a') }}{{ 'abc'.removesuffix('c') }}|{{ 'a,b,c'.rsplit(',', 1) | join('+') }}|{{ ' a b  c '.rsplit(none, 1) | join('+') }}|{{ 'a=b=c'.partition('=') | join('+') }}|{{ 'a=b=c'.rpartition('=') | join('+') }}|{{ '-7'.zfill(4) }}",
        "bcab|a,b+c| a b+c|a+=+b=c|a=b+=+c|-007",
    ),
    (
        "{{ 'abc' | upper }}{{ 'a b'.title() }}{{ 'x' ~ 1 ~ true ~ none }}{{ '=' * 3 }}|{{ 'abc'[::-1] }}|{{ 'a' in 'cat' }}",
        "ABCA Bx1TrueNone===|cba|True",
    ),
    (
        "{{ 'abc' is string }}{{ 'abc' is iterable }}{{ 'abc' is sequence }}{{ {} is mapping }}{{ [1] is iterable }}{{ messages[0] is mapping }}{{ messages is sequence }}{{ 3 is number }}{{ none is none }}",
        "TrueTrueTrueTrueTrueTrueTrueTrueTrue",
    ),
    (
        "{{ messages[0].get('content') }}{{ messages[0].get('x', 'd') }}{{ messages[0].x is defined }}{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{% for k in messages[0] %}{{ k }},{% endfor %}",
        "<q>dFalserole=user;content=<q>;role,content,",
    ),
    ("  {# c #}\n x {{ 1 }}\n{{ 2 }}\n  {%+ if true %}y{% endif +%}\n z\n\n", " x 1\n2\n  y\n z\n"),
    (
        "{% macro m(a, b='d') %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}{% set x %}\n b {% endset %}{{ x | trim }}",
        "[1d][12]b",
    ),
    (
        "{% set s = messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list %}{{ s | length }}{{ s | last }}{{ s[-1] }}",
        "2cc",
    ),
    (
        "{{ undefined_thing }}{{ undefined_thing is defined }}{{ undefined_thing | default('d') }}{{ enable_thinking }}{{ none }}",
        "FalsedNone",
    ),
    (
        "{%- for m in messages %}\n    {%- if loop.index0 % 2 == 0 -%}\n  {{- '<' + m.role + '>\\n' -}}\n    {%- endif %}\n{%- endfor %}\n{{ '\\n' }}",
        "<user>\n<user>\n\n",
    ),
    (
        "{{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ 1.0 }} {{ 7 % 4 }} {{ true and 'x' }} {{ none or 'y' }} {{ [1,2] + [3] }} {{ (1, 2) }}",
        "3 3.5 8 1.0 3 x y [1, 2, 3] (1, 2)",
    ),
    (
        "{{ \"a'b\" | string }}{{ ['a', \"b\"] }}{{ {'a': 'b', 'c': 1} }}{{ [true, none] }}",
        "a'b['a', 'b']{'a': 'b', 'c': 1}[True, None]",
    ),
    ("{{ strftime_now('%d %B %Y') }}", "30 June 2025"),
    (
        "{{ '{} {}'.format(1, 'x') }}{{ 'a\\nb'.splitlines() | length }}{{ 'abc'.find('c') }}{{ 'abcabc'.count('bc') }}{{ 'a-b'.replace('-', '+') }}{{ 'abc'.index('b') }}",
        "1 x222a+b1",
    ),
    (
        "{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}{% for x in [] %}{% else %}E{% endfor %}{% for x in [1,2,3] if x > 1 %}{{ x }}{% endfor %}",
        "1234E23",
    ),
    (
        "{{ messages[-1]['content'] if messages else 'none' }}{{ 'a' if false }}{{ messages | length > 2 }}{{ not true }}",
        "cTrueFalse",
    ),
    (
        "{{ [3, 1] | sort | join }}{{ 'a' | indent }}{{ ['a', 'b'] | first }}{{ {'a': 1}.keys() | list }}{{ {'a': 1} | items | list }}{{ {'b': 1, 'a': 2} | dictsort }}",
        "13aa['a'][('a', 1)][('a', 2), ('b', 1)]",
    ),
    ("{{ dict(a=1, b='x') | tojson }}{{ range(3) | list }}", "{\"a\": 1, \"b\": \"x\"}[0, 1, 2]"),
    ("{{ 'é\\u00e9\\x41' }}", "ééA"),
    (
        "{{ loop is defined }}{{ messages.0.role }}{{ messages|map(attribute='role')|unique|list|length }}",
        "Falseuser2",
    ),
    (
        "{% set x = 0 %}{% generation %}{% set x = 1 %}{{ x }}{% set y = 2 %}{% endgeneration %}{{ x }}{{ y is defined }}",
        "10False",
    ),
    (
        "{{ none is iterable }}{{ undefined_thing is iterable }}{{ 3 is iterable }}{{ messages[0] is iterable }}",
        "FalseTrueFalseTrue",
    ),
    (
        "{{ 1e-07 }}|{{ 1e16 | string }}|{{ -2.50 }}|{{ [1e-07, 1.5e300, 100000.0] | tojson }}",
        "1e-07|1e+16|-2.5|[1e-07, 1.5e+300, 100000.0]",
    ),
    (
        "{{ '\\x1c a \\x1f'.strip() }}|{{ '\\x1d a'.lstrip() }}|{{ 'a \\x1e'.rstrip() }}|{{ '\\x1c a\\u2003' | trim }}|{{ 'xax' | trim('x') }}|{{ none | trim }}{{ undefined_thing | trim }}{{ 3 | trim }}",
        "a|a|a|a|a|None3",
    ),
    (
        "{{ ' a\\x1cb \\u2003c '.split() | join('+') }}|{{ ' a b  c '.split(none, 1) | join('+') }}|{{ 'a,b,c'.split(',', 1) | join('+') }}|{{ '\\x1f '.isspace() }}{{ ''.isspace() }}",
        "a+b+c|a+b  c |a+b,c|TrueFalse",
    ),
    (
        "{{ 'a\\r\\nb\\rc\\x0bd\\u2028\\n'.splitlines() | join('+') }}|{{ 'a\\r\\n\\nb'.splitlines(true) | tojson }}|{{ ''.splitlines() | length }}",
        "a+b+c+d+|[\"a\\r\\n\", \"\\n\", \"b\"]|0",
    ),
];

#[test]
fn templates_are_those_of_jinja2() {
    let mut wrong = Vec::new();
    for (source, text) in CASES {
        let rendered = render(&template(source));
        if rendered.as_deref() != Ok(text) {
            wrong.push(format!("{source:?}\n  gives {rendered:?}\n  not   {text:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn line_ends_of_messages_are_kept() {
    let template = template("{% for m in messages %}\r\n{{ m.content }}\r\n{% endfor %}");
    assert_eq!(template.prompt(&[Message::new("user", "a\r\nb\r")]).unwrap(), "a\r\nb\r\n");
}

#[test]
fn templates_refuse() {
    let error = render(&template("{{ raise_exception('no ' ~ messages[0].role) }}")).unwrap_err();
    assert!(error.starts_with("chat template: ") && error.contains("no user"), "{error}");
    let error = render(&template("{{ strftime_now('%Q') }}")).unwrap_err();
    assert!(error.contains("strftime_now does not know %Q in '%Q'"), "{error}");
    assert!(render(&template("{% generation %}x")).is_err());
}

#[test]
fn users_set_variables() {
    let source = "{{ 'think' if enable_thinking is not defined or enable_thinking else 'answer' }} \
                  {{ tools | tojson }} {{ strftime_now('%d %b %Y') }}{{ strftime_now is defined }}";
    let mut template = template(source);
    assert_eq!(render(&template).unwrap(), "think null 30 Jun 2025True");
    let args = |args: serde_json::Value| -> BTreeMap<String, Argument> {
        serde_json::from_value(args).unwrap()
    };
    // The date is one of the variables that are recorded, where the template writes it.
    assert_eq!(template.args(), args(json!({"strftime_now": "2025-06-30"})));
    assert!(ChatTemplate::new("{{ bos_token }}", "", "").args().is_empty());
    let given =
        json!({"enable_thinking": false, "tools": [{"name": "f"}], "strftime_now": "2024-02-01"});
    template.set_args(&args(given)).unwrap();
    assert_eq!(render(&template).unwrap(), "answer [{\"name\": \"f\"}] 01 Feb 2024True");
    for (given, said) in [
        (
            json!({"messages": []}),
            "chat template: the argument messages is set for every prompt: leave it out",
        ),
        (json!({"strftime_now": 7}), "chat template: the argument strftime_now: 7 is not a date"),
        (
            json!({"strftime_now": "2024-02-30"}),
            "chat template: the argument strftime_now: '2024-02-30' is not a date \
            such as 2025-06-30 or 2025-06-30T13:05:00",
        ),
    ] {
        assert_eq!(template.set_args(&args(given)).unwrap_err().to_string(), said);
    }
}

/// Tokens that a model lacks are undefined, as in transformers.
#[test]
fn missing_tokens_are_undefined() {
    let source = "{{ bos_token is defined }}{{ eos_token is defined }}{{ bos_token }}";
    let rendered = |bos: &str, source: &str| render(&ChatTemplate::new(source, bos, "</s>"));
    assert_eq!(rendered("<s>", source).unwrap(), "TrueTrue<s>");
    assert_eq!(rendered("", source).unwrap(), "FalseTrue");
    assert_eq!(rendered("<s>", "{{ bos_token + 'x' }}").unwrap(), "<s>x");
    assert!(rendered("", "{{ bos_token + 'x' }}").unwrap_err().contains("undefined"));
}

/// The keys of tools keep their order, and numbers are those of Python.
#[test]
fn variables_keep_the_order_of_their_keys() {
    let tools =
        r#"[{"type": "f", "name": "a", "default": 1e-07, "b": {"z": 1.0, "y": null, "x": "<&>\""}}]"#;
    let mut template = template("{{ tools | tojson }}{% for key in tools[0] %} {{ key }}{% endfor %}");
    let args = BTreeMap::from([("tools".to_owned(), serde_json::from_str::<Argument>(tools).unwrap())]);
    template.set_args(&args).unwrap();
    assert_eq!(render(&template).unwrap(), format!("{tools} type name default b"));
    assert_eq!(
        serde_json::to_string(&template.args()["tools"]).unwrap(),
        tools.replace(": ", ":").replace(", ", ",").replace("1e-07", "1e-7")
    );
}
