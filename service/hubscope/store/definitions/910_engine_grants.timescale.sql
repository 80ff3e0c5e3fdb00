-- What the timescale engine needs on top: the writer marks late hours, the worker deletes marks that are settled.

GRANT INSERT ON rollup.late_marks TO :writer;
GRANT DELETE ON rollup.late_marks TO :worker;
