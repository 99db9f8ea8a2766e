from forecast_fixtures import rain_file, shared_run, tiny_run  # noqa: F401
