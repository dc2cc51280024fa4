"""The pages, one module for each subject: a coroutine takes a `View` and returns the answer."""
