"""`millstream log`: what is done to a whole log."""

import typer

from millstream.cli.log import cleaning, copies, repair, serve, stats, verify

app = typer.Typer(help="Copy and look after a whole log.", no_args_is_help=True)
app.command("compact")(cleaning.compact)
app.command("erase")(cleaning.erase)
app.command("backup")(copies.back_up)
app.command("backups")(copies.list_backups)
app.command("restore")(copies.restore)
app.command("mirror")(copies.mirror)
app.command("promote")(copies.promote)
app.command("serve")(serve.serve)
app.command("verify")(verify.verify)
app.command("repair")(repair.repair)
app.command("stats")(stats.stats)
