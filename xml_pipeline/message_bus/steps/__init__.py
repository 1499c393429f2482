"""The XML stages of the pipeline, one file per step: plain functions, and their coroutine twins."""
