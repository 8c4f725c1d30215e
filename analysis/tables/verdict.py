"""The advice in words: one paragraph, and a table of the few arms that it names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from analysis.tables.advice import CONTROL, ONE_SIDED, PERCENTILES, Advice, Candidate, Outcome
from analysis.tables.disturbance import MARK
from analysis.tables.statistics import INTERVAL_NOTE
from analysis.tables.summary import Estimate, Summary, estimate, format_value
from bench.registry import BACKENDS, METRICS
from bench.store.records import TORCH

YES_NO = {True: "yes", False: "no"}

_REMEDY = (
    "When nothing else runs, give the same bench run command with --time-again: it times them anew, all else is kept."
)


@dataclass(frozen=True)
class Line:
    """An arm of the table.

    Attributes:
        role, arm: what it is, and its name.
        estimates: a number for each of `headings`.
        admissible: whether it is within the limit.
        advised: whether it is the arm to deploy.
    """

    role: str
    arm: str
    estimates: tuple[Estimate, ...]
    admissible: bool
    advised: bool


def paragraph(advice: Advice) -> str:
    """Return the advice as one paragraph in plain words."""
    return " ".join([_answer(advice), *_reasons(advice), *_basis(advice)])


def _answer(advice: Advice) -> str:
    """Say yes, no or not clearly, and which arm."""
    best, adaptive = advice.fastest, advice.adaptive
    holds = f"loses at most {advice.max_drop:g} of {_words(advice.metric)} with {ONE_SIDED:.0%} confidence"
    if advice.outcome is Outcome.UNKNOWN:
        within = [_arm(each) for each in advice.admissible if not each.reference]
        arms = f"{'; '.join(within) or 'no arm'} (and the full model itself)"
        what = "latencies were taken on a busy or unsteady machine, so the fastest arm is not known"
        return f"No verdict: {what}. What {holds}: {arms}. {_REMEDY}"
    if len(advice.candidates) == 1:
        return f"No verdict: there is nothing to compare {_arm(advice.candidates[0])} with."
    if best is None or advice.outcome is Outcome.FULL_ALONE:
        return f"No: no arm but the full model in PyTorch {holds}."
    if advice.outcome is Outcome.ADAPTIVE:
        return f"Yes, deploy an adaptive model: {_arm(best)} is the fastest arm that {holds}."
    if advice.outcome is Outcome.UNCLEAR:
        fastest = f"the adaptive {_arm(best)} is the fastest arm that {holds}"
        return f"Not clearly: {fastest}, but it may be no faster than the best static model."
    if adaptive is None:
        why = "no adaptive model was timed"
    elif not adaptive.admissible:
        why = f"no adaptive model {holds}"
    else:
        why = f"no adaptive model that {holds} is faster than the best static one"
    return f"No: {why}. The fastest arm within the limit is static: {_arm(best)}."


def _reasons(advice: Advice) -> Iterator[str]:
    """Yield what stands behind the answer: the time, against what, the loss, and what else there is."""
    best = advice.fastest
    if best is None:
        return
    full = {advice.hugging_face: "in Hugging Face's implementation", advice.full: "on its fastest engine"}
    against = [
        f", {_ratio(each)} times as fast as the full model {where} ({each.backend}, {_milliseconds(advice, each)} ms)"
        for each, where in reversed(full.items())
        if each not in (None, best)
    ]
    yield f"It takes {_milliseconds(advice, best)} ms ({advice.percentile} of one text at a time){''.join(against)}."
    if not best.reference:
        yield f"Its {_words(advice.metric)} less the full model's in PyTorch is {_difference(advice, best)}."
    told = {best, advice.full}
    for role, other in (
        ("best static model", advice.static),
        ("runner-up", advice.runner_up),
        ("fastest adaptive model" if _has_adaptive(advice) else "adaptive model that comes closest", advice.adaptive),
    ):
        if other is not None and other not in told:
            told.add(other)
            loss = "" if other.admissible else f", and its difference is {_difference(advice, other)}"
            takes = f"takes {_milliseconds(advice, other)} ms, {_ratio(other)} times as long"
            yield f"The {role}, {_arm(other)}, {takes}{loss}."


def _basis(advice: Advice) -> Iterator[str]:
    """Yield where, and on how much, all this was timed, and what to do next."""
    yield f"Timed on {advice.setting}, batch 1, {advice.timed:,} examples."
    best = advice.fastest
    if best is not None and BACKENDS[best.backend].exports:
        yield f"Take it away: bench export {best.run_ids[0]} --out FOLDER."
    if len(engines := {each.backend for each in advice.candidates}) == 1:
        yield f"Only {engines.pop()} was timed: an engine that runs the full model faster may change this answer."


def headings(advice: Advice) -> tuple[str, ...]:
    """Name the numbers of a line: latency, times the fastest arm's latency, difference in quality."""
    latency = f"latency {advice.percentile} ({METRICS[PERCENTILES[advice.percentile]].unit})"
    return latency, "times as long as the fastest", f"{_words(advice.metric)} less the full model's"


def lines(advice: Advice) -> tuple[Line, ...]:
    """Return the arms that the advice names, by rising latency; all of them where latencies say nothing."""
    roles = _roles(advice) if advice.trusted else _standings(advice)
    known = [(each, [role for role, holder in roles if holder is each]) for each in advice.candidates]
    return tuple(
        Line(
            role="; ".join(names),
            arm=_arm(each),
            estimates=(_milliseconds(advice, each), _ratio(each), _difference(advice, each)),
            admissible=each.admissible,
            advised=each is advice.fastest,
        )
        for each, names in known
        if names
    )


def _roles(advice: Advice) -> tuple[tuple[str, Candidate | None], ...]:
    """Return what the advice names, and the arm that it is."""
    return (
        ("fastest within the limit", advice.fastest),
        ("runner-up", advice.runner_up),
        ("fastest adaptive model" if _has_adaptive(advice) else "adaptive model closest to the limit", advice.adaptive),
        ("best static model", advice.static),
        ("full model on its fastest engine", advice.full),
        ("full model in PyTorch", advice.reference),
        ("full model in Hugging Face's implementation", advice.hugging_face),
    )


def _standings(advice: Advice) -> tuple[tuple[str, Candidate | None], ...]:
    """Return for each arm whether it is within the limit."""
    return tuple((f"{'' if each.admissible else 'not '}within the limit", each) for each in advice.candidates)


def verdict(advice: Advice) -> Summary:
    """Return the arms that the advice names as a table, with notes on what its numbers mean and who is left out."""
    rows = [(line.role, line.arm, *map(str, line.estimates), YES_NO[line.admissible]) for line in lines(advice)]
    columns = ("what", "arm", *headings(advice), "within the limit")
    return Summary(columns=columns, rows=tuple(rows), notes=(*notes(advice), *left_out(advice)))


def notes(advice: Advice) -> Iterator[str]:
    """Yield what the numbers mean, and what the reader has to beware of."""
    count = f"{len(advice.admissible)} of {len(advice.candidates)} arms"
    yield (
        f"within the limit: the lower end of the difference is at least {-advice.max_drop:g}; {count}. It is the "
        f"one-sided {ONE_SIDED:.0%} limit (a paired {2 * ONE_SIDED - 1:.0%} interval), the others are {INTERVAL_NOTE}"
    )
    yield (
        "picked on the examples that it is scored and timed on, the fastest of many arms flatters itself a little: "
        "measure it once more on others before you rely on it"
    )
    if reasons := dict.fromkeys(line for each in advice.candidates for line in each.disturbed_by):
        yield f"{MARK} marks latencies of a busy or unsteady machine, which are not to be trusted: {'; '.join(reasons)}"
    if advice.sessions > 1:
        yield "the arms are of several timing sessions, between which a machine drifts; --time-again times them in one"


def left_out(advice: Advice) -> Iterator[str]:
    """Yield each reason for which arms or runs are left out, and these arms."""
    if advice.earlier:
        yield f"left out (the same model was run again, and the newest counts): {advice.earlier} earlier runs"
    labels = defaultdict(list)
    for label, reason in advice.left_out.items():
        labels[reason].append(label)
    for reason, names in labels.items():
        yield f"left out ({reason}): {f'{len(names)} arms' if reason == CONTROL else '; '.join(names)}"


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _arm(candidate: Candidate) -> str:
    """Name an arm and its engine, which only labels of other engines than PyTorch hold."""
    return f"{candidate.label} on {TORCH}" if candidate.backend == TORCH else candidate.label


def _has_adaptive(advice: Advice) -> bool:
    return advice.adaptive is not None and advice.adaptive.admissible


def _milliseconds(advice: Advice, candidate: Candidate) -> Estimate:
    written = estimate(candidate.latency, METRICS[PERCENTILES[advice.percentile]].format)
    return replace(written, text=written.text + MARK * bool(candidate.disturbed_by))


def _ratio(candidate: Candidate) -> Estimate:
    return estimate(candidate.ratio, "{:.2f}".format)


def _difference(advice: Advice, candidate: Candidate) -> Estimate:
    """Write a difference with its sign; that of the full model in PyTorch to itself is none."""
    if candidate.reference:
        return Estimate("-")
    return estimate(candidate.difference, lambda value: "+" * (value > 0) + format_value(advice.metric, value))
