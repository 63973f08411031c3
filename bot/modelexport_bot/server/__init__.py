"""``modelexport-bot serve``: webhooks of the Hub in, durable jobs, pull requests out.

- ``config.py``: where it listens, where it keeps its data, whom it believes
- ``app.py``: the paths it answers on
- ``webhook.py``: what a delivery says, and whether it comes from whom it should
- ``router.py``: from an event to the behaviours that care about it
- ``push.py``: the behaviour on a push to ``main``
- ``jobs.py``: jobs that survive us
- ``recorded.py``: what of them is written down
- ``log.py``: what is logged, with every secret cut out
- ``run.py``: the process
"""
