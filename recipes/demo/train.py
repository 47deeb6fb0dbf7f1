"""Train the packaged demo CLIP on a CPU: warm-up, constant rate, then a cool-down when told to.

    python recipes/demo/train.py --data DATA --out RUN                 start, or go on after a kill
    touch RUN/COOLDOWN                                                 finish: anneal, export-ready
    python recipes/demo/train.py --data DATA --out RUN --export DIR    write the model

DATA is what prepare.py writes. A COOLDOWN file may hold the number of steps to anneal over.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from augment import augment, sample_caption
from export import export, normalise
from holdout import evaluate
from model import encode_texts, image_features, new_model
from tokenizer import encode, save_tokenizer, train_tokenizer
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

PERMISSIVE = {"MIT", "Apache-2.0", "ISC", "BSD-3-Clause", "CC0-1.0", "Unlicense"}


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder written by prepare.py")
    p.add_argument("--out", type=Path, required=True, help="run folder: checkpoint, log, tokenizer")
    p.add_argument("--export", type=Path, help="write the Hugging Face folder here and stop")
    p.add_argument("--minutes", type=float, help="begin the cool-down after this much training")
    p.add_argument("--cooldown-steps", type=int, help="default: 15 %% of the steps so far")
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--keep", type=int, default=24, help="patches of 64 kept until the cool-down")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--warmup", type=int, default=400)
    p.add_argument("--ramp", type=int, default=2500, help="steps over which augmentation grows to full")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


def load(folder: Path) -> tuple[np.ndarray, list[dict], dict[str, list[int]]]:
    """Images (memory-mapped), rows and splits of a prepared data folder."""
    try:
        images = np.load(folder / "images.npy", mmap_mode="r")
        rows = [json.loads(line) for line in (folder / "meta.jsonl").open(encoding="utf-8")]
        splits = json.loads((folder / "splits.json").read_text())["splits"]
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"{folder}: not a folder written by recipes/demo/prepare.py ({error})") from error
    return images, rows, splits


def holdouts(rows: list[dict], splits: dict[str, list[int]], n: int = 1000) -> dict[str, list[int]]:
    """At most n pairs of the permissive validation rows and of every target's select split."""
    out = {}
    for name in ("pretrain_val", *sorted(s for s in splits if s.endswith("_select"))):
        index = [i for i in splits[name] if name != "pretrain_val" or rows[i]["licence"] in PERMISSIVE]
        out[name] = sorted(random.Random(0).sample(index, min(n, len(index))))
    return out


class Run:
    """Everything a step needs; the part that `state` returns survives a kill."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.images, self.rows, self.splits = load(args.data)
        self.train = np.array(self.splits["pretrain_permissive"])
        torch.manual_seed(args.seed)
        self.tokenizer = self._tokenizer()
        self.model = new_model(self.tokenizer)
        self.ema = [p.detach().clone() for p in self.model.parameters()]
        self.words = torch.nn.Linear(192, len(self.tokenizer))
        decay = [p for p in [*self.model.parameters(), self.words.weight] if p.ndim > 1]
        rest = [p for p in [*self.model.parameters(), self.words.bias] if p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), eps=1e-8, fused=True)
        self.gen, self.rng = torch.Generator().manual_seed(args.seed), random.Random(args.seed)
        self.step, self.seconds, self.cool_from, self.cool_steps = 0, 0.0, -1, 0

        core = set(self.splits["pretrain_core"])
        weight = [4.0 if r["kind"] == "emoji" else 2.5 if i in core else 1.0
                  for i in self.train for r in (self.rows[i],)]  # fmt: skip
        self.weight = torch.tensor(weight)
        self.colour = torch.tensor([self.rows[i]["palette"] for i in self.train])
        number: dict[str, int] = {}
        self.concept = torch.tensor([number.setdefault(self.rows[i]["concept"], len(number)) for i in self.train])
        self.word_ids, self.word_weights = self._words()

    def _words(self) -> tuple[Tensor, Tensor]:
        """For every training image up to 16 token ids of its names (weight 1) and keywords (0.3).

        Weights are multiplied by the inverse document frequency and sum to 1; unused places weigh 0.
        """
        cut = self.tokenizer.backend_tokenizer
        tokens: list[dict[int, float]] = []
        for i in self.train:
            row, bag = self.rows[i], {}
            for texts, weight in ((row["keywords"][:12], 0.3), (row["captions"], 1.0)):
                for t in cut.encode(" ".join(texts), add_special_tokens=False).ids if texts else ():
                    bag[t] = weight
            tokens.append(bag)
        found = Counter(t for bag in tokens for t in bag)
        ids, weights = torch.zeros(len(tokens), 16, dtype=torch.long), torch.zeros(len(tokens), 16)
        for k, bag in enumerate(tokens):
            idf = {t: w * math.log(len(tokens) / found[t]) for t, w in bag.items()}
            for j, t in enumerate(sorted(idf, key=lambda t: -idf[t])[:16]):
                ids[k, j], weights[k, j] = t, idf[t]
        return ids, weights / weights.sum(1, keepdim=True).clamp(min=1e-6)

    def _tokenizer(self) -> CLIPTokenizer:
        folder = self.args.out / "tokenizer"
        if (folder / "tokenizer.json").exists():
            return CLIPTokenizer.from_pretrained(folder)
        counts: Counter[str] = Counter()
        for i in self.train:
            counts.update(self.rows[i]["captions"] + self.rows[i]["keywords"])
        tokenizer = train_tokenizer(counts, 5000)
        save_tokenizer(tokenizer, folder)
        return tokenizer

    def state(self) -> dict:
        return {
            "model": self.model.state_dict(), "words": self.words.state_dict(), "ema": self.ema, "optimiser": self.optimiser.state_dict(),
            "step": self.step, "seconds": self.seconds, "cool": (self.cool_from, self.cool_steps),
            "gen": self.gen.get_state(), "torch": torch.get_rng_state(), "python": self.rng.getstate(),
        }  # fmt: skip

    def save(self) -> None:
        torch.save(self.state(), self.args.out / "checkpoint.tmp")
        os.replace(self.args.out / "checkpoint.tmp", self.args.out / "checkpoint.pt")

    def resume(self) -> bool:
        path = self.args.out / "checkpoint.pt"
        if not path.exists():
            return False
        s = torch.load(path, weights_only=False)
        self.model.load_state_dict(s["model"])
        self.words.load_state_dict(s["words"])
        self.ema, self.step, self.seconds = s["ema"], s["step"], s["seconds"]
        self.cool_from, self.cool_steps = s["cool"]
        self.optimiser.load_state_dict(s["optimiser"])
        self.gen.set_state(s["gen"])
        torch.set_rng_state(s["torch"])
        self.rng.setstate(s["python"])
        return True

    def plan(self) -> tuple[float, int | None, bool]:
        """Learning rate, patches to keep and whether training is over, for the present step."""
        lr = self.args.lr * min(1.0, (self.step + 1) / self.args.warmup)
        if self.cool_from < 0:
            return lr, self.args.keep, False
        t = (self.step - self.cool_from) / self.cool_steps
        return lr * max(0.0, 1 - t**0.5), 36 if t < 0.6 else None, t >= 1

    def maybe_cool(self) -> None:
        flag, minutes = self.args.out / "COOLDOWN", self.args.minutes
        late = minutes is not None and self.seconds > 60 * minutes
        if self.cool_from < 0 and (flag.exists() or late):
            text = flag.read_text().strip() if flag.exists() else ""
            self.cool_from = self.step
            self.cool_steps = int(text or self.args.cooldown_steps or max(1, self.step * 15 // 100))

    def loss(self, keep: int | None) -> Tensor:
        """Symmetric contrastive loss in the batch, plus naming the words of the captions from the image.

        Pairs of the same concept are never each other's negatives. The word head is a linear layer that
        is thrown away: it gives every image a dense target from the first step, where a contrastive
        loss on small batches alone stays near chance for a long time.
        """
        strength = min(1.0, max(0.0, (self.step - 800) / self.args.ramp))
        pick = torch.multinomial(self.weight, self.args.batch, generator=self.gen)
        index = self.train[pick.numpy()]
        concept = self.concept[pick]
        batch = torch.from_numpy(self.images[index]).permute(0, 3, 1, 2)
        pixels = normalise(augment(batch, self.colour[pick], self.gen, strength))
        texts = [sample_caption(self.rows[i], self.rng) for i in index]
        features = image_features(self.model, pixels, keep)  # (B, 192)
        image = F.normalize(self.model.visual_projection(features), dim=-1)  # (B, 192)
        text = encode_texts(self.model, encode(self.tokenizer, texts))  # (B, 192)
        scale = self.model.logit_scale.clamp(max=4.6052).exp()
        same = (concept[:, None] == concept[None, :]).fill_diagonal_(False)
        goal = torch.arange(len(image))
        logits = (scale * image @ text.T).masked_fill(same, -1e4)  # (B, B)
        pairs = (F.cross_entropy(logits, goal) + F.cross_entropy(logits.T, goal)) / 2
        likely = F.log_softmax(self.words(features), dim=-1).gather(1, self.word_ids[pick])  # (B, 16)
        words = -(likely * self.word_weights[pick]).sum(1).mean()
        self.last = (pairs.item(), words.item())
        return pairs + words

    def one_step(self) -> bool:
        """Do one update; False when the cool-down has ended."""
        lr, keep, over = self.plan()
        if over:
            return False
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        loss = self.loss(keep)
        if not torch.isfinite(loss):
            raise SystemExit(f"step {self.step}: the loss is {loss.item()}; lower --lr and resume")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        decay = min(0.998, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for mean, p in zip(self.ema, self.model.parameters(), strict=True):
                mean.lerp_(p, 1 - decay)
        self.step += 1
        return True

    def finished(self) -> CLIPModel:
        """A copy of the model: the running average of its weights, or after a cool-down the weights.

        The average reaches back over about 500 steps, which is further than a cool-down may be long.
        """
        cooled = self.cool_from >= 0 and self.step >= self.cool_from + self.cool_steps
        copy = new_model(self.tokenizer)
        with torch.no_grad():
            for p, e in zip(copy.parameters(), self.model.parameters() if cooled else self.ema, strict=True):
                p.copy_(e)
        return copy.eval()

    def report(self) -> dict:
        model = self.finished()
        sets = holdouts(self.rows, self.splits)
        return {k: evaluate(model, self.tokenizer, self.images, self.rows, v, normalise)
                for k, v in sets.items()}  # fmt: skip


def train(run: Run) -> None:
    """Train until the cool-down ends, saving every 3 minutes and evaluating every 10."""
    out: Path = run.args.out

    def log(**record: object) -> None:
        with (out / "log.jsonl").open("a") as f:
            f.write(json.dumps({"step": run.step, "minutes": round(run.seconds / 60, 2), **record}) + "\n")

    log(event="start", images=len(run.train), concepts=int(run.concept.max()) + 1,
        parameters=sum(p.numel() for p in run.model.parameters()))  # fmt: skip
    clock = saved = evaluated = time.monotonic()
    losses: list[tuple[float, float]] = []
    going = True
    while going:
        run.maybe_cool()
        going = run.one_step()
        losses.append(run.last)
        now = time.monotonic()
        if run.step % 50 == 0 and going:
            rate = len(losses) * run.args.batch / (now - clock)
            run.seconds += now - clock
            clock = now
            lr, keep, _ = run.plan()
            scale = run.model.logit_scale.exp().item()
            log(images_per_s=round(rate, 1), loss=[round(float(x), 4) for x in np.mean(losses, 0)], lr=round(lr, 7),
                keep=keep or 64, scale=round(scale, 2), cooling=run.cool_from >= 0)  # fmt: skip
            losses = []
        if now - saved > 180 or not going:
            run.save()
            saved = now
        if now - evaluated > 600 or not going:
            log(event="holdout", **run.report())
            evaluated = time.monotonic()
            clock += evaluated - now  # the rate is that of training
    (out / "DONE").touch()


def main() -> int:
    args = options()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(args)
    found = run.resume()
    if args.export:
        if not found:
            raise SystemExit(f"{args.out}: no checkpoint.pt to export; train first")
        sample = torch.from_numpy(run.images[run.splits["pretrain_val"][:16]])
        print(json.dumps({"step": run.step, **export(run.finished(), run.tokenizer, sample, args.export)}))
        print(json.dumps(run.report()))
        return 0
    train(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
