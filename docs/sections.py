"""For the API pages: docstrings name their parts (`Shape:`, `Reference:`, ...) in lines that follow one another.

Griffe sees a part only after an empty line, so it gets one; and it lists `Attributes:`, where ours say `Fields:`.
"""

import re

import griffe

PARTS = re.compile(r"\n(?=(?:Arguments|Fields|Shape|Reference|Deviations|Complexity):[ ]*\n)")


class Sections(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring:
            obj.docstring.value = PARTS.sub("\n\n", obj.docstring.value).replace("\nFields:\n", "\nAttributes:\n")
