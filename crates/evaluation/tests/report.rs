//! The report as a page, and its tables as files.

use std::io::Read;

use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::read::GzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};
use stackelberg_evaluation::report::{
    self, Answer, Cell, Matrix, Question, Report, Row, Table, Trace, TraceStep,
};

use crate::fixture;

/// The content of the element with an id.
fn element<'a>(page: &'a str, id: &str) -> &'a str {
    let start = page.find(&format!("id=\"{id}\">")).expect("the element is there") + id.len() + 6;
    &page[start..start + page[start..].find("</script>").expect("the element ends")]
}

fn unpacked(page: &str, id: &str) -> Value {
    let bytes = BASE64_STANDARD.decode(element(page, id)).unwrap();
    let mut json = String::new();
    GzDecoder::new(bytes.as_slice()).read_to_string(&mut json).unwrap();
    serde_json::from_str(&json).unwrap()
}

#[test]
fn the_page_holds_all_data() {
    let report = fixture::report(30);
    let page = report::page(&report).unwrap();
    let head: Value = serde_json::from_str(element(&page, "report")).unwrap();
    let data = serde_json::to_value(&report).unwrap();
    for field in [
        "title",
        "about",
        "opening",
        "findings",
        "facts",
        "tables",
        "charts",
        "matrices",
        "histograms",
        "methods",
        "rewards",
    ] {
        let is_empty = match &head[field] {
            Value::String(text) => text.is_empty(),
            list => list.as_array().unwrap().is_empty(),
        };
        assert!(!is_empty, "{field}");
        assert_eq!(head[field], data[field], "{field}");
    }
    assert_eq!(head["questions"], 30);

    let questions: Vec<Question> = serde_json::from_value(unpacked(&page, "questions")).unwrap();
    assert_eq!(questions.len(), report.questions.len());
    let mut compared = 0;
    for (packed, question) in questions.iter().zip(&report.questions) {
        assert_eq!((&packed.id, &packed.prompt), (&question.id, &question.prompt));
        assert_eq!(packed.answers.len(), question.answers.len());
        for (packed, answer) in packed.answers.iter().zip(&question.answers) {
            let (Some(packed), Some(answer)) = (packed, answer) else {
                assert_eq!(packed, answer);
                continue;
            };
            assert_eq!(packed.text, answer.text);
            assert_eq!((packed.trace, &packed.warnings), (answer.trace, &answer.warnings));
            let numbers = |answer: &Answer| [answer.rewards.clone(), vec![answer.kl]].concat();
            let (rounded, exact) = (numbers(packed), numbers(answer));
            assert_eq!(rounded.len(), exact.len());
            for (rounded, exact) in rounded.into_iter().zip(exact) {
                compared += usize::from(exact.is_some());
                match (rounded, exact) {
                    (None, None) => {}
                    (Some(r), Some(x)) if (r - x).abs() <= 5e-4 * x.abs() => {}
                    different => panic!("{different:?}"),
                }
            }
        }
    }
    // Two rewards (one method has one) and the KL of 11 methods' answers to 30 prompts; one answer is missing.
    assert_eq!(compared, 30 * (12 + 11 + 11) - 3);
    for (index, exact) in report.traces.iter().enumerate() {
        let trace: Trace = serde_json::from_value(unpacked(&page, &format!("trace-{index}"))).unwrap();
        let texts = |trace: &Trace| -> Vec<(String, Vec<String>, Option<usize>)> {
            let step = |step: &TraceStep| (step.text.clone(), step.tokens.clone(), step.chosen);
            trace.steps.iter().map(step).collect()
        };
        assert_eq!(texts(&trace), texts(exact), "{index}");
    }
    assert_eq!(report.traces.len(), 24);
}

#[test]
fn no_text_becomes_part_of_the_page() {
    let mut report = fixture::report(8);
    let nasty = "</title></script><script>alert(1)</script><!-- \u{2028} ]]> {title}";
    report.title = nasty.into();
    report.about = nasty.into();
    report.findings = vec![nasty.into()];
    report.opening = vec![nasty.into()];
    report.tables[0].title = nasty.into();
    let clean = report::page(&fixture::report(8)).unwrap();
    let page = report::page(&report).unwrap();
    for tag in ["<script", "</script", "<!--", "</title"] {
        assert_eq!(page.matches(tag).count(), clean.matches(tag).count(), "{tag}");
    }
    let head: Value = serde_json::from_str(element(&page, "report")).unwrap();
    assert_eq!(head["title"], nasty);
}

#[test]
fn the_windows_title_has_no_code_marks() {
    let report = Report { title: "One `two` three".into(), ..Report::default() };
    let page = report::page(&report).unwrap();
    assert!(page.contains("<title>One two three</title>"));
    let head: Value = serde_json::from_str(element(&page, "report")).unwrap();
    assert_eq!(head["title"], "One `two` three");
}

#[test]
fn findings_as_markdown() {
    let mut report = Report {
        title: "One `two`".into(),
        opening: vec!["First_a.".into(), "Second <b>.".into()],
        findings: vec!["Third\nfourth.".into()],
        ..Report::default()
    };
    let wanted = "# One `two`\n\n- First\\_a.\n- Second &lt;b>.\n\n## All findings\n\n<details>\n\
                  <summary>Show all (1)</summary>\n\n- Third fourth.\n\n</details>\n";
    assert_eq!(report::findings(&report), wanted);
    report.findings.clear();
    assert!(!report::findings(&report).contains("details"));
}

#[test]
fn the_page_asks_for_nothing() {
    let page = report::page(&fixture::report(3)).unwrap();
    let inside = |tag: &str| {
        let start = page.find(&format!("<{tag}>")).unwrap() + tag.len() + 2;
        &page[start..start + page[start..].find(&format!("</{tag}>")).unwrap()]
    };
    let (style, script) = (inside("style"), inside("script"));
    assert!(style.contains("--paper") && script.contains("nameLooks"));
    assert!(!style.contains("url(") && !style.contains("@import"));
    // The namespace of SVG is the only address.
    let addresses: Vec<_> = page.match_indices("http").map(|(at, _)| &page[at..at + 26]).collect();
    let (meta, addresses): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.starts_with("http-equiv"));
    assert_eq!((meta.len(), addresses), (1, vec!["http://www.w3.org/2000/svg"]));
    // The policy allows this style and this script, and nothing else.
    let hash = |text: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)));
    let policy = format!(
        "content=\"default-src 'none'; style-src {}; script-src {}; img-src data:; base-uri 'none'; \
         form-action 'none'\"",
        hash(style),
        hash(script)
    );
    assert!(page.contains(&policy), "{policy}");
}

#[test]
fn a_thousand_prompts_of_twelve_methods_stay_small() {
    let page = report::page(&fixture::report(1000)).unwrap();
    assert_eq!(unpacked(&page, "questions").as_array().unwrap().len(), 1000);
    assert!((2_000_000..15_000_000).contains(&page.len()), "{} bytes", page.len());
}

#[test]
fn an_empty_report_is_a_page() {
    let page = report::page(&Report::default()).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("<title>Report</title>"));
    assert!(!page.contains("id=\"questions\"") && !page.contains("id=\"trace-0\""));
    assert!(report::page(&fixture::report(1)).unwrap().contains("id=\"questions\""));
}

/// The error for a report that `spoil` has changed.
fn refusal(spoil: impl Fn(&mut Report)) -> String {
    let mut report = fixture::report(2);
    spoil(&mut report);
    report::page(&report).unwrap_err().to_string()
}

#[test]
fn inconsistent_parts_are_named() {
    let cases = [
        (
            refusal(|r| r.tables[0].rows[1].cells.truncate(2)),
            "row args raw of the table main: 2 cells for 6 columns",
        ),
        (
            refusal(|r| r.matrices[0].cells[3].truncate(1)),
            "the matrix Who wins: 1 cells in a row for 12 labels",
        ),
        (refusal(|r| r.histograms[0].edges.truncate(3)), "args raw: 3 edges"),
        (
            refusal(|r| r.histograms[0].edges[1] = f64::NAN),
            "the histogram args raw: its edges do not rise",
        ),
        (refusal(|r| r.questions[1].answers.truncate(11)), "prompt hh-0001: 11 answers for 12 methods"),
        (refusal(|r| r.rewards.truncate(1)), "prompt hh-0000: 2 rewards of an answer for 1 rewards"),
        (refusal(|r| r.traces.truncate(3)), "prompt hh-0001: refers to trace 3, there are 3"),
        (
            refusal(|r| r.traces[0].steps[5].fused.truncate(1)),
            "step 5 of trace 0: 1 fused for 10 candidates",
        ),
        (
            refusal(|r| r.traces[0].steps[5].base = Some(10)),
            "step 5 of trace 0: there are only 10 candidates",
        ),
        (
            refusal(|r| r.matrices.push(Matrix { labels: vec!["a".into()], ..Matrix::default() })),
            "0 rows for 1 labels",
        ),
    ];
    for (said, wanted) in cases {
        assert!(said.contains(wanted), "{said:?} does not say {wanted:?}");
    }
}

#[test]
fn infinities_and_nan_are_null() {
    let step = TraceStep {
        tokens: vec!["a".into()],
        logits: vec![f64::NEG_INFINITY],
        fused: vec![f64::NAN],
        ..TraceStep::default()
    };
    let answer = Answer { trace: Some(0), ..Answer::default() };
    let report = Report {
        methods: vec!["base".into()],
        questions: vec![Question { answers: vec![Some(answer)], ..Question::default() }],
        traces: vec![Trace { values: true, steps: vec![step] }],
        ..Report::default()
    };
    let trace = unpacked(&report::page(&report).unwrap(), "trace-0");
    // A field that is missing would be null, too.
    let numbers = |field: &str| trace["steps"][0][field].as_array().unwrap().clone();
    assert_eq!((numbers("logits"), numbers("fused")), (vec![Value::Null], vec![Value::Null]));
}

/// A table with everything that has to be escaped.
fn strange_table() -> Table {
    let cell =
        |mean, interval, digits, bold, differs| Some(Cell { mean, interval, digits, bold, differs });
    let row = |group: &str, label: &str, cells| Row { group: group.into(), label: label.into(), cells };
    Table {
        name: "strange".into(),
        title: "50% of $x_1 & y^2".into(),
        note: "A \\note, \"quoted\" {braced} ~ #1 <tag>.".into(),
        columns: vec!["reward, shaped".into(), "a|b\nc".into()],
        rows: vec![
            row("", "base", vec![cell(-0.004, None, 2, false, 0), None]),
            row(
                "args",
                "[srs], λ = 1",
                vec![cell(1.725_123, Some((1.18, 2.25)), 2, true, 1), cell(12.0, None, 0, false, 0)],
            ),
            row(
                "args",
                "say \"raw\" --fast",
                vec![cell(-1.5, Some((-2.0, -1.0)), 1, false, -1), cell(f64::NAN, None, 2, false, 0)],
            ),
        ],
    }
}

#[test]
fn tables_as_csv() {
    let wanted = "group,name,\"reward, shaped\",\"reward, shaped low\",\"reward, shaped high\",\"a|b\nc\"\n\
                  ,base,-0.004,,,\n\
                  args,\"[srs], λ = 1\",1.725123,1.18,2.25,12\n\
                  args,\"say \"\"raw\"\" --fast\",-1.5,-2,-1,\n";
    assert_eq!(report::csv(&strange_table()), wanted);
}

#[test]
fn tables_as_markdown() {
    let wanted = "|  |  | reward, shaped | a\\|b c |\n\
                  | --- | --- | ---: | ---: |\n\
                  |  | base | 0.00 | – |\n\
                  | args | \\[srs\\], λ = 1 | **1.73** [1.18, 2.25] ▲ | 12 |\n\
                  | args | say \"raw\" --fast | -1.5 [-2.0, -1.0] ▼ | – |\n";
    assert_eq!(report::markdown(&strange_table()), wanted);
}

#[test]
fn tables_as_latex() {
    let wanted = r#"\begin{table}
\centering
\caption{50\% of \$x\_1 \& y\textasciicircum{}2. A \textbackslash{}note, "quoted" \{braced\} \textasciitilde{} \#1 \textless{}tag\textgreater{}.}
\label{tab:strange}
\begin{tabular}{lrr}
\toprule
 & reward, shaped & a\textbar{}b c \\
\midrule
base & 0.00 & -- \\
\addlinespace
\multicolumn{3}{l}{\emph{args}} \\
\quad {[}srs], $\lambda$ = 1 & \textbf{1.73}$^{\uparrow}$ {\scriptsize [1.18, 2.25]} & 12 \\
\quad say "raw" -{}-fast & $-$1.5$^{\downarrow}$ {\scriptsize [$-$2.0, $-$1.0]} & -- \\
\bottomrule
\end{tabular}
\end{table}
"#;
    assert_eq!(report::latex(&strange_table()), wanted);
}
