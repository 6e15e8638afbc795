from chexalign.cli.main import main

main()
