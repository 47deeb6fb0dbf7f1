# %% [markdown]
# # Ship, and compare
#
# A mask is found. Is it worth it, what would training have gained, and how does it get into production? On the packaged model and a
# part of its drawings, so the numbers are small and noisy; the steps are those of real data.

# %%
import torch
from transformers import AutoModel

import headwise

model = headwise.load("demo")
pairs = headwise.read("demo")
pairs = pairs.subset(range(0, len(pairs), 12))
mask = headwise.Mask.suppress(model.tower.grid, ["L0.H0", "L4.H0"], "zero")
mask

# %% [markdown]
# ## Is it better than the model as it was?
#
# Paired, on the same images: the change, its interval, p, and the queries behind it.

# %%
told = headwise.evaluate("demo", pairs, mask, against="identity", only_split="test")
told.summary()

# %%
told["against"]["queries"]["examples"]["gained"][:3]

# %% [markdown]
# ## What would training gain?
#
# Every method gets the same splits and the same budget.

# %%
settings = headwise.CompareSettings(
    strategies=("greedy", "scale", "layernorm"),
    repeats=1,
    search=headwise.Settings(operators=("zero",), budget=45, max_heads=3),
)
compared = headwise.compare("demo", pairs, "compared/", settings=settings)
compared.summary()

# %%
compared.to_pandas()[["method", "change", "low", "high", "p", "trained"]]

# %%
compared.plot()

# %% [markdown]
# ## In place, or for good
#
# In a running program a mask is a context; outside it the model is the old one.

# %%
pixels = model.preprocess(headwise.data.decode.decode(pairs.images[0].read()))[None]
with torch.inference_mode():
    before = model.module.get_image_features(pixel_values=pixels).pooler_output
    with headwise.apply(model, mask):
        masked = model.module.get_image_features(pixel_values=pixels).pooler_output
float((before - masked).abs().max())

# %% [markdown]
# Merged, it is an ordinary folder that plain transformers loads, at no extra cost:

# %%
report = headwise.merge(model, mask, "merged/")
plain = AutoModel.from_pretrained("merged/", dtype=torch.float32).eval()  # its files are float16, as the source is
with torch.inference_mode():
    merged = plain.get_image_features(pixel_values=pixels).pooler_output
torch.testing.assert_close(merged, masked, rtol=0, atol=1e-4)
report.sentence
