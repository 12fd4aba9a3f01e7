"""From a service to a running Serve application: render, apply, wait, status, delete."""
