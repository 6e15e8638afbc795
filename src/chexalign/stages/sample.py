"""Stage `sample`: N reports per training study from the baseline policy → completions.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chexalign.jsonl import Ledger
from chexalign.policies import engines
from chexalign.policies.forward.generate import stream_seed
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt
from chexalign.progress import progress
from chexalign.records import Completion, Study
from chexalign.run.folder import Run, StageResult
from chexalign.run.policies import open_policy, prompts_for
from chexalign.run.studies import sampled_studies


def sample_completions(run: Run) -> StageResult:
    """Draw `sample.n` reports for each training study."""
    settings = run.recipe.sample
    studies = sampled_studies(run.recipe, run.studies("train"))
    policy = open_policy(run, "baseline")
    engines.attach(policy, settings.engine, run.recipe.studies.max_images)
    sampling = Sampling(
        n=settings.n,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        seed=run.recipe.seed,
        top_p=settings.top_p,
    )
    prompts = prompts_for(run, policy, studies)
    rows = generate_to(run.path("completions.jsonl"), policy, studies, prompts, sampling, "sampling reports")
    cut = sum(r.finish_reason == "length" for r in rows)
    return StageResult(len(studies), len(rows), {}, {"cut_at_max_new_tokens": cut})


@dataclass(frozen=True)
class Sampling:
    """How reports are drawn: `n` per study, the random stream of each study fixed by `seed` and its id."""

    n: int
    temperature: float  # 0 is greedy
    max_new_tokens: int
    batch_size: int  # studies per batch; each brings n reports
    seed: int
    top_p: float = 1.0


def generate_to(
    path: Path,
    policy: Policy,
    studies: Sequence[Study],
    prompts: Sequence[Prompt],
    sampling: Sampling,
    label: str,
) -> list[Completion]:
    """Generate for every study into a ledger at `path`; resumes, and writes rows in study order.

    `prompts` are those of `studies`, in their order; `label` names the work on the progress display.

    Prompts of like length share a batch. Batches are fixed by that and the study order, and a batch of which any row is
    missing is generated whole again: an interrupted run ends in the same bytes as an uninterrupted one.
    """
    n, batch_size = sampling.n, sampling.batch_size
    ledger = Ledger(path, Completion)
    order = {s.study_id: i for i, s in enumerate(studies)}
    by_length = sorted(range(len(studies)), key=lambda i: len(prompts[i].text))
    studies, prompts = [studies[i] for i in by_length], [prompts[i] for i in by_length]
    done = sum((s.study_id, j) in ledger for s in studies for j in range(n))
    with progress(label, len(studies) * n, "reports", done) as ticker:
        for start in range(0, len(studies) if not ledger.finished else 0, batch_size):
            batch = studies[start : start + batch_size]
            missing = {(s.study_id, j) for s in batch for j in range(n) if (s.study_id, j) not in ledger}
            if not missing:
                continue
            seeds = [stream_seed(sampling.seed, s.study_id) for s in batch]
            groups = policy.generate(
                prompts[start : start + batch_size],
                n,
                sampling.temperature,
                sampling.max_new_tokens,
                seeds,
                top_p=sampling.top_p,
            )
            rows = [
                Completion(
                    study_id=study.study_id,
                    sample_index=j,
                    text=policy.text(one.tokens),
                    logp=one.logp,
                    n_tokens=len(one.tokens),
                    finish_reason=one.finish_reason,
                    policy=policy.name,
                    seed=study_seed,
                    tokens=one.tokens,
                    written=policy.written(one.tokens),
                )
                for study, study_seed, group in zip(batch, seeds, groups, strict=True)
                for j, one in enumerate(group)
            ]
            ledger.append([r for r in rows if r.key() in missing])
            ticker.advance(len(missing))
    return ledger.finish(lambda r: (order[r.study_id], r.sample_index))
