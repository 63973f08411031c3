"""``modelexport-bot serve``: webhooks of the Hub in, durable jobs, pull requests out.

- ``config.py``: where it listens, where it keeps its data, whom it believes
- ``app.py``: the paths it answers on
- ``webhook.py``: what a delivery says, and whether it comes from whom it should
- ``router.py``: from an event to the behaviours that care about it
- ``push.py``, ``comment.py``: the behaviours, one on a push to ``main``, one on a comment
- ``database.py``: where jobs are on record
- ``jobs.py``: jobs that survive us
- ``steps.py``: what their steps do, and do again
- ``stopping.py``: what a stop is not: a failure
- ``recorded.py``: what of them is written down
- ``retention.py``: when it is forgotten
- ``shown.py``: what of them everybody may see
- ``log.py``: what is logged, with every secret cut out
- ``run.py``: the process
"""
