"""Pretrained encoders of texts: `preset` -> a tokenizer and a backbone.

`presets.load` knows where a preset comes from. keras-hub loads its own presets. Hugging
Face folders are read here: one file for each family of models says which tensor of
the folder goes where (`docs/notes/0007-french-encoders.md` has the reasons).

keras-hub takes seconds to import, so it is imported inside the functions that need it.
"""
