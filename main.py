"""Pretrain, evaluate or plan: `python -m main --config configs/x.py[:args]`.

Exit codes: 0 done, 1 failed, 2 bad input (one message says what to change),
143 stopped by a signal after saving, 75 by one where nothing was saved.
"""

from big_vision_like import program

run = program.run

if __name__ == '__main__':
  run()
