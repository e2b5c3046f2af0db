"""The admin API and its page, as the extra `web`: the same jobs, state and lock over HTTP."""
