# %% [markdown]
# # First steps
#
# Some attention heads of a CLIP image encoder hurt on data that it was not trained on. This notebook finds them on the packaged
# model and drawings: a few minutes on two cores, nothing is fetched.

# %%
from IPython.display import HTML, Image

import headwise
from headwise.reports.gallery import thumbnail

# %% [markdown]
# ## A model and pairs
#
# Any CLIP of transformers, open_clip or timm is named in the same way (`hf:openai/clip-vit-base-patch32`), and any table, folder or
# data set is read in the same way. Here: a small CLIP that was trained on icons, and a twelfth of the hand-drawn doodles that it never saw.

# %%
model = headwise.load("demo")
pairs = headwise.read("demo")
pairs = pairs.subset(range(0, len(pairs), 12))
model.tower, pairs

# %%
shown = "".join(
    f'<figure style="display:inline-block;margin:4px;width:112px"><img alt="" src="{thumbnail(pairs.images[i])}">'
    f"<figcaption>{pairs.captions[i][0]}</figcaption></figure>"
    for i in range(6)
)
HTML(shown)

# %% [markdown]
# ## What does each head do to the score?
#
# A sweep suppresses every head alone. Nothing is held out here: it is for looking, not for claiming.

# %%
swept, results = headwise.sweep("demo", pairs, operator="zero")
results.summary()

# %%
results.plot()

# %% [markdown]
# ## Find, choose, prove
#
# `refine` searches on one part of the images, chooses on a second, and reads a third once. Masks alone (`rungs`) of few heads keep it short here; by default learned scales and axes compete, too.

# %%
settings = headwise.Settings(
    operators=("zero",), strategies=("greedy",), rungs=("mask",), budget=50, max_heads=4, controls=5
)
found = headwise.refine("demo", pairs, "refined/", settings=settings)
found

# %% [markdown]
# On a twelfth of the pictures the splits are small, and the honest answer is often that nothing is shown. `headwise demo` runs the same
# on all of them. The folder holds one page to open or send, the mask with its card, and the model:

# %%
sorted(path.name for path in found.folder.iterdir())

# %%
Image(found.folder / "heads.png")
