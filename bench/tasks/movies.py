"""Movies: is a film review positive? Whole reviews in windows, whose rationales people have marked.

Every window of a review is an example with the review's label, named <review>#<number>, and is scored by itself.
AdapLeR's release drops the windows without rationale, for training too; here they stay, because which windows those
are is not known of a new text.
"""

from bench.tasks import Task

MOVIES = Task(
    name="movies",
    summary="sentiment of film reviews with rationales (ERASER), by window: 1,600 training reviews, 199 to report on",
    source="Zaidan and Eisner, 2008; ERASER: DeYoung et al., 2020",
    labels=("NEG", "POS"),
    metrics=("accuracy", "f1"),
    max_length=512,
    evaluation="test",
    text="review",
    hub=("eraser-benchmark/movie_rationales@refs/convert/parquet", "default"),
    folder="eraser/movies",
    eraser=True,
    rationales="eraser/movies",
    windows=True,
)
