#!/bin/sh
# What the image runs: Beam gives its workers options alone, others a whole command or what
# follows `capsad`.
case "${1:-}" in
    --id=*) exec /opt/apache/beam/boot "$@" ;;
    python* | sh | bash | tfx | capsad | /*) exec "$@" ;;
    *) exec capsad "$@" ;;
esac
