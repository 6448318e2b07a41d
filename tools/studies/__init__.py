"""Parts of the study tool (tools/study.py): plan, run, collect, report."""
