"""The chorale codec's vocabulary; apart, because the codec and its grammar both need it."""

import numpy as np

SILENCE = 128
PAD = 129
BOS = 130
EOS = 131
VOCAB_SIZE = 132

STEPS_PER_BEAT = 4  # 16ths in a quarter
STEPS_PER_BAR = 16  # of 4/4

VOICES = ("Soprano", "Alto", "Tenor", "Bass")

# Lowest and highest pitch of each voice: what the JSB Chorales hold (soprano 60-81, alto 52-74, tenor 46-69,
# bass 36-66), with the tops of the lower voices a little wider, to where a choir still sings them.
VOICE_RANGES = np.array([[60, 81], [52, 76], [46, 72], [36, 69]])
VOICE_RANGES.setflags(write=False)
