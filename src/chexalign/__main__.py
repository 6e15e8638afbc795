from chexalign.cli.commands import main

main()
