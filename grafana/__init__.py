"""Dashboards (source and built) and provisioning of Grafana."""
