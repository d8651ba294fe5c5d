//! The report's page and its tables as files.

use std::io::Read;

use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::read::GzDecoder;
use serde_json::Value;
use stackelberg_evaluation::report::{
    self, Answer, Cell, Matrix, Question, Report, Row, Table, Trace, TraceStep,
};

use crate::fixture;

/// What the element with an id holds.
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
    assert_eq!(head["tables"], serde_json::to_value(&report.tables).unwrap());
    assert_eq!(head["charts"], serde_json::to_value(&report.charts).unwrap());
    assert_eq!(head["questions"], 30);

    let questions: Vec<Question> = serde_json::from_value(unpacked(&page, "questions")).unwrap();
    for (packed, question) in questions.iter().zip(&report.questions) {
        assert_eq!((&packed.id, &packed.prompt), (&question.id, &question.prompt));
        for (packed, answer) in packed.answers.iter().zip(&question.answers) {
            let (Some(packed), Some(answer)) = (packed, answer) else {
                assert_eq!(packed, answer);
                continue;
            };
            assert_eq!(packed.text, answer.text);
            assert_eq!(packed.trace, answer.trace);
            for (rounded, reward) in packed.rewards.iter().flatten().zip(answer.rewards.iter().flatten())
            {
                assert!((rounded - reward).abs() <= 5e-4 * reward.abs(), "{rounded} for {reward}");
            }
        }
    }
    let trace: Trace = serde_json::from_value(unpacked(&page, "trace-23")).unwrap();
    assert_eq!(trace.steps.len(), report.traces[23].steps.len());
}

#[test]
fn no_text_becomes_part_of_the_page() {
    let mut report = fixture::report(8);
    let nasty = "</title></script><script>alert(1)</script><!-- \u{2028} ]]> {title}";
    report.title = nasty.into();
    report.about = nasty.into();
    report.findings = vec![nasty.into()];
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
fn the_page_asks_for_nothing() {
    let page = report::page(&fixture::report(3)).unwrap();
    let style = &page[page.find("<style>").unwrap()..page.find("</style>").unwrap()];
    assert!(!style.contains("url(") && !style.contains("@import"));
    // The name of SVG's elements is the only address.
    let addresses: Vec<_> = page.match_indices("http").map(|(at, _)| &page[at..at + 26]).collect();
    assert!(
        addresses.iter().all(|a| *a == "http://www.w3.org/2000/svg" || a.starts_with("http-equiv")),
        "{addresses:?}"
    );
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn a_thousand_prompts_of_twelve_methods_stay_small() {
    let page = report::page(&fixture::report(1000)).unwrap();
    assert!(page.len() < 15_000_000, "{} bytes", page.len());
}

#[test]
fn an_empty_report_is_a_page() {
    let page = report::page(&Report::default()).unwrap();
    assert!(page.starts_with("<!doctype html>") && !page.contains("id=\"questions\""));
}

/// What is said of a report that `spoil` has spoiled.
fn refusal(spoil: impl Fn(&mut Report)) -> String {
    let mut report = fixture::report(2);
    spoil(&mut report);
    report::page(&report).unwrap_err().to_string()
}

#[test]
fn parts_that_do_not_fit_are_named() {
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
            "step 5 of trace 0: there are 10 candidates only",
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
fn numbers_that_are_none_are_null() {
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
    assert_eq!(trace["steps"][0]["logits"][0], Value::Null);
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
