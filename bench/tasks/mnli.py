"""MNLI: does a premise entail a hypothesis, contradict it, or neither?"""

from bench.tasks import Task, Tsv

LABELS = ("entailment", "neutral", "contradiction")

MNLI = Task(
    name="mnli",
    summary="entailment across genres (GLUE MNLI): 392,702 training pairs, 9,815 matched ones to report on",
    source="Williams et al., 2018; GLUE: Wang et al., 2019",
    labels=LABELS,
    metrics=("accuracy",),
    max_length=128,
    evaluation="validation_matched",
    text="premise",
    pair="hypothesis",
    hub=("nyu-mll/glue", "mnli"),
    folder="glue/MNLI",
    tsv=Tsv(
        files={
            "train": "train.tsv",
            "validation_matched": "dev_matched.tsv",
            "validation_mismatched": "dev_mismatched.tsv",
            "test_matched": "test_matched.tsv",
            "test_mismatched": "test_mismatched.tsv",
        },
        text="sentence1",
        pair="sentence2",
        label="gold_label",
        named=True,
    ),
    unlabelled={"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv", "ax": "AX.tsv"},
    elsewhere={
        "ax": (
            Task(
                name="ax",
                summary="GLUE's diagnostics, 1,104 pairs, answered by a model of MNLI",
                source="GLUE: Wang et al., 2019, section 4",
                labels=LABELS,
                metrics=("accuracy",),
                max_length=128,
                text="premise",
                pair="hypothesis",
                hub=("nyu-mll/glue", "ax"),
                folder="glue/diagnostic",
                tsv=Tsv(
                    files={"test": "diagnostic.tsv"}, text="sentence1", pair="sentence2", label="label", named=True
                ),
                unlabelled={"test": "AX.tsv"},
            ),
            "test",
        )
    },
)
