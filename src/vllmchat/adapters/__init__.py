"""What plugs a provider into other frameworks."""
