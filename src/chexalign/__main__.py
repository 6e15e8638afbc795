from chexalign.cli import main

main()
