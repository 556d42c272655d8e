"""The performance codec's vocabulary; apart, because the codec and its grammar both need it."""

NOTE_ON = 0  # + pitch
NOTE_OFF = 128  # + pitch
SHIFT = 256  # + steps - 1
VELOCITY = 356  # + bin
PAD = 388
BOS = 389
EOS = 390
VOCAB_SIZE = 391

PITCHES = 128
STEPS_PER_SECOND = 100
MAX_SHIFT = 100  # steps: 1 s
VELOCITY_BINS = 32
BIN_WIDTH = 128 // VELOCITY_BINS
