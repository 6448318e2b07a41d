"""A worker process of Beam on this machine, silent but for crashes.

  python -m input_pipeline.beam_worker

beam_runner.py has the DirectRunner start it; Beam's own worker writes a page of
messages to the console.
"""

import logging

if __name__ == '__main__':
  logging.disable(logging.ERROR)
  from apache_beam.runners.worker import sdk_worker_main

  sdk_worker_main.main([])
