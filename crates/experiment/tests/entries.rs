//! Entries of `[[methods]]` with decoding settings of their own: what reaches the runs, what is refused, and names.

use std::collections::BTreeSet;
use std::fs;

use stackelberg_decoding::{Keep, Method, Perturbation};
use stackelberg_experiment::{Error, Experiment, Setting, most_tokens_run, stages};
use stackelberg_shaping::Rule;

const HEAD: &str =
    "name = \"x\"\nrewards = { guide = \"harmless\" }\nprompts = [{ from = \"mt-bench\" }]\n";
const VALUES: &str = "[values]\nprompts = [{ from = \"mt-bench\" }]\n";

/// Reads an experiment with these tables after [`HEAD`], which has three lines.
fn read(tables: &str) -> Result<Experiment, Box<Error>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    fs::write(&file, format!("{HEAD}{tables}")).unwrap();
    Experiment::read(&file).map_err(Box::new)
}

fn refused(tables: &str) -> String {
    read(tables).map(|_| String::new()).unwrap_or_else(|error| {
        let causes = std::iter::successors(std::error::Error::source(&*error), |cause| cause.source());
        causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
    })
}

fn settings(tables: &str) -> Vec<Setting> {
    let experiment = read(tables).unwrap();
    stages(&experiment, &[]).into_iter().flat_map(|(_, settings)| settings).collect()
}

/// One entry of a method, with these lines.
fn entry(method: &str, lines: &str) -> String {
    format!("[[methods]]\nmethod = \"{method}\"\n{lines}\n")
}

#[test]
fn own_settings_reach_the_runs_and_override_the_shared_ones() {
    let all = settings(
        &[
            "[decoding]\nsamples = 5\nblock = 32\ncandidates = 12\n",
            &entry("best-of-n", ""),
            &entry("best-of-n", "samples = 16"),
            &entry(
                "args",
                "shapings = [\"raw\"]\nstrengths = [1]\nscore_every = 8\ncandidates = 4\nskip = false\nbound = 3",
            ),
            &entry("blockwise", "samples = 8\nblock = 16"),
            &entry(
                "blockwise",
                "keep = \"draw\"\nshapings = [\"srs\"]\nstrengths = [1.5]\nref_quantile = 0.5",
            ),
        ]
        .concat(),
    );
    // The sweep of args is the last stage.
    let [base, five, sixteen, best, draw, args] = &all[..] else { panic!("{all:#?}") };
    assert_eq!(base.method, Method::Base);
    assert_eq!((five.settings.samples, sixteen.settings.samples), (5, 16));
    let own = &args.settings;
    assert_eq!(
        (own.method, own.score_every, own.candidates, own.skip, own.shaping.bound),
        (Method::Args, 8, 4, false, 3.0)
    );
    assert_eq!((best.settings.samples, best.settings.block, best.settings.keep), (8, 16, Keep::Best));
    let own = &draw.settings;
    assert_eq!((own.samples, own.block, own.keep, own.shaping.rule), (5, 32, Keep::Draw, Rule::Srs));
    assert_eq!((own.shaping.strength, own.shaping.ref_quantile), (1.5, 0.5));
    // The others keep the shared settings.
    assert_eq!((base.settings.candidates, best.settings.candidates), (12, 12));
    let tokens = [base, sixteen, args].map(|setting| most_tokens_run(&setting.settings));
    assert_eq!(tokens, [128, 16 * 128, 5 * 128]);
}

#[test]
fn names_have_the_own_settings_of_an_entry() {
    let raw = "shapings = [\"raw\"]\n";
    let all = settings(
        &[
            &entry("best-of-n", ""),
            &entry("best-of-n", "samples = 16"),
            &entry("args", &format!("{raw}strengths = [1]")),
            &entry("args", &format!("{raw}strengths = [1]\nscore_every = 8")),
            &entry("args", &format!("{raw}kl_budgets = [0.3]\nscore_every = 8\nentropy_gate = 0.5")),
            &entry("blockwise", "samples = 8\nblock = 16"),
            &entry("blockwise", "samples = 8\nblock = 16\nvalue = \"raw\""),
            &entry("blockwise", &format!("{raw}keep = \"draw\"\nstrengths = [2]")),
            &entry("best-of-n", "reject = 0.5\nblock = 8"),
            VALUES,
        ]
        .concat(),
    );
    let named = |setting: &Setting| (setting.group(), setting.to_string(), setting.slug());
    let names: Vec<_> = all.iter().map(named).collect();
    for (group, name, slug) in [
        ("base", "base", "base"),
        ("best-of-n", "best-of-n", "best-of-n"),
        ("best-of-n samples 16", "best-of-n samples 16", "best-of-n-samples-16"),
        ("args", "args raw λ 1", "args-raw-1"),
        ("args score_every 8", "args score_every 8 raw λ 1", "args-score-every-8-raw-1"),
        (
            "args score_every 8 entropy_gate 0.5 by KL budget",
            "args score_every 8 entropy_gate 0.5 raw 0.3 nats a step",
            "args-score-every-8-entropy-gate-0.5-raw-0.3-nats-a-step",
        ),
        ("blockwise samples 8 block 16", "blockwise samples 8 block 16", "blockwise-samples-8-block-16"),
        (
            "blockwise samples 8 block 16 value raw",
            "blockwise samples 8 block 16 value raw",
            "blockwise-samples-8-block-16-value-raw",
        ),
        ("blockwise keep draw", "blockwise keep draw raw λ 2", "blockwise-keep-draw-raw-2"),
        ("best-of-n reject 0.5 block 8", "best-of-n reject 0.5 block 8", "best-of-n-reject-0.5-block-8"),
    ] {
        let expected = (group.to_owned(), name.to_owned(), slug.to_owned());
        assert!(names.contains(&expected), "{expected:?} is not in {names:#?}");
    }
    assert_eq!(names.len(), 10);
    let slugs: BTreeSet<_> = names.iter().map(|(_, _, slug)| slug).collect();
    assert_eq!(slugs.len(), names.len());
}

/// The folders of experiments of older versions: these names must not change.
#[test]
fn names_without_own_settings_are_those_of_older_versions() {
    let all = settings(
        &[
            "[decoding]\nsamples = 4\nblock = 8\nkeep = \"draw\"\n",
            &entry("soft-best-of-n", "strengths = [1]"),
            &entry("particles", "shapings = [\"srs\"]\nstrengths = [1]"),
            &entry("args", "shapings = [\"raw\", \"srs\"]\nreference = [\"srs\"]\nstrengths = [0.5]"),
            &entry("args", "shapings = [\"raw\"]\nkl_budgets = [0.2]"),
            &entry("cd", "shapings = [\"raw\"]\nstrengths = [4]"),
            "[[perturbed]]\nmethod = \"args\"\nshapings = [\"raw\"]\nwith = [\"reversed\"]\n",
            VALUES,
        ]
        .concat(),
    );
    let slugs: Vec<String> = all.iter().map(Setting::slug).collect();
    assert_eq!(
        slugs,
        [
            "base",
            "soft-best-of-n-1",
            "particles-srs-1",
            "args-raw-0.5",
            "args-raw-0.2-nats-a-step",
            "cd-raw-4",
            "args-srs-0.5",
            "args-srs-reference-0.5",
            "args-raw-0.5-reversed",
            "args-raw-0.2-nats-a-step-reversed",
        ]
    );
    let groups: BTreeSet<String> = all.iter().map(Setting::group).collect();
    let expected = ["args", "args by KL budget", "base", "cd", "particles", "soft-best-of-n"];
    assert!(groups.iter().eq(expected), "{groups:?}");
}

#[test]
fn unknown_unused_and_shared_settings_are_refused() {
    let args = "shapings = [\"raw\"]\nstrengths = [1]";
    let best = entry("best-of-n", "");
    for (tables, expected) in [
        (
            format!("{best}{}", entry("best-of-n", "smaples = 4")),
            "x.toml:9: unknown field `smaples`, expected one of `method`, `shapings`",
        ),
        (
            entry("best-of-n", "samples = \"four\""),
            "x.toml:6: invalid type: string \"four\", expected usize",
        ),
        (entry("blockwise", "keep = \"worst\""), "x.toml:6: 'worst' must be best or draw"),
        (
            entry("best-of-n", "temperature = 0.5"),
            "x.toml:6: temperature is not a setting of a single entry: give it in [decoding]",
        ),
        (
            entry("args", &format!("{args}\nstrength = 1")),
            "x.toml:8: strength is not a setting of a single entry: give it in `strengths`",
        ),
        (
            entry("args", &format!("{args}\nbudget = \"paper\"")),
            "x.toml:8: budget is not a setting of a single entry: give it in `reference`",
        ),
        (entry("best-of-n", "block = 4"), ": methods[0].block: best-of-n does not use it: leave it out"),
        (
            format!("[decoding]\nblock = 4\n{best}"),
            ": decoding.block: none of the [[methods]] uses it: leave it out",
        ),
        (
            format!("{best}{}", entry("args", &format!("{args}\nsamples = 4"))),
            ": methods[1].samples: args does not use it: leave it out",
        ),
        (
            entry("best-of-n", "score_every = 4"),
            ": methods[0].score_every: best-of-n does not use it: leave it out",
        ),
        // The best continuation needs no shaping.
        (
            entry("blockwise", "stretch = 2"),
            ": methods[0].stretch: blockwise does not use it: leave it out",
        ),
        (entry("blockwise", "value = \"raw\""), ": methods[0].value: it needs a [values] table"),
        (
            format!("{best}{}{VALUES}", entry("args", &format!("{args}\nvalue = \"raw\""))),
            ": methods[1].value: only blockwise and particles have blocks",
        ),
        (format!("{best}{best}"), ": methods[1].method: best-of-n already has an entry"),
        (
            format!("{0}{0}", entry("best-of-n", "samples = 4")),
            ": methods[1].method: best-of-n samples 4 already has an entry",
        ),
        (
            entry("best-of-n", "samples = 0"),
            ": best-of-n samples 0: samples is 0: it must be at least 1",
        ),
    ] {
        let said = refused(&tables);
        assert!(said.contains(expected), "{tables}\n-> {said}\nexpected {expected}");
    }
    let unknown = refused(&entry("best-of-n", "smaples = 4"));
    assert!(unknown.contains("`value`, `stretch`, ") && unknown.contains("`samples`"), "{unknown}");
    assert!(!unknown.contains("`temperature`") && !unknown.contains("`own`"), "{unknown}");
    // The former name of a setting is read.
    assert!(read(&entry("args", &format!("{args}\nmin_entropy = 0.5"))).is_ok());
}

#[test]
fn a_value_head_scores_blocks_where_the_entry_names_one() {
    let all = settings(
        &[
            &entry("blockwise", ""),
            &entry("blockwise", "value = \"srs\""),
            &entry("particles", "value = \"hard\"\nshapings = [\"raw\"]\nstrengths = [1]"),
            VALUES,
        ]
        .concat(),
    );
    let heads: Vec<_> = all.iter().map(|setting| setting.value().map(|head| head.file())).collect();
    let file = |name: &str| Some(format!("{name}.safetensors"));
    assert_eq!(heads, [None, None, file("srs"), file("hard")]);
}

#[test]
fn rewards_of_methods_without_a_sweep_can_be_perturbed() {
    let tables = |perturbed: &str| {
        [
            &entry("best-of-n", ""),
            &entry("best-of-n", "samples = 4"),
            &entry("particles", "shapings = [\"raw\", \"srs\"]\nstrengths = [1]"),
            "[[perturbed]]\nmethod = \"best-of-n\"\nwith = [\"noise=1\"]\n",
            perturbed,
        ]
        .concat()
    };
    let particles =
        "[[perturbed]]\nmethod = \"particles\"\nshapings = [\"srs\"]\nwith = [\"reversed\"]\n";
    let all = settings(&tables(particles));
    let perturbed: Vec<&Setting> =
        all.iter().filter(|setting| setting.perturbation != Perturbation::None).collect();
    let names: Vec<String> = perturbed.iter().map(|setting| setting.to_string()).collect();
    assert_eq!(
        names,
        ["best-of-n noise=1", "best-of-n samples 4 noise=1", "particles srs λ 1 reversed"]
    );
    assert!(perturbed.iter().all(|setting| setting.settings.perturbation == setting.perturbation));
    let said = refused(&tables(&particles.replace("shapings = [\"srs\"]\n", "")));
    assert!(said.contains("perturbed[1].shapings: give particles at least one"), "{said}");
    let said = refused(&tables(&particles.replace("particles", "base")));
    assert!(said.contains("perturbed[1].method: base is not among the [[methods]]"), "{said}");
}
